"""Where this user's files of the program lie, as the platform has it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["default_cache_dir", "log_file"]


def default_cache_dir() -> Path:
    """Encoded clips, converted weights and compiled code; losing it costs time and nothing else."""
    import platformdirs

    return platformdirs.user_cache_path("csm-repl")


def log_file() -> Path:
    import platformdirs

    return platformdirs.user_state_path("csm-repl") / "csm-repl.log"
