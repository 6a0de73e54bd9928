"""What the commands are called: enough to tell one from speech. What they do is in `studio.commands`."""

from __future__ import annotations

__all__ = ["COMMAND_NAMES"]

COMMAND_NAMES = (
    "CLEAR", "SWAP", "BACK", "HISTORY", "EXIT", "HELP", "VOICES", "STATUS", "SET", "UNDO", "RETRY", "PLAY",
    "SAVE", "LOAD",
)  # fmt: skip
