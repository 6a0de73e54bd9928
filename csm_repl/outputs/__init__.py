"""Output files: takes, tracks."""
