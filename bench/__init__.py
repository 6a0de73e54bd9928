"""Benchmarks: one command per question. Nothing here is part of the installed package."""
