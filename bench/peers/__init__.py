"""Implementations of CSM that are measured beside each other: each builds itself and times one take."""
