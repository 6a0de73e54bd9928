"""The small model inside the package: speaks without an account, a download or a GPU."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUILTIN_MODEL", "builtin_folder"]

BUILTIN_MODEL = "demo"


def builtin_folder() -> Path:
    return Path(__file__).parent.parent / "demo"
