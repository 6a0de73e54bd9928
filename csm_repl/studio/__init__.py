"""The application without a front end.

What is named here is imported when it is first asked for: the console reads the commands before it loads
torch, so that something is on the screen at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csm_repl.studio.open import open_studio, open_voices
    from csm_repl.studio.studio import Studio

__all__ = ["Studio", "open_studio", "open_voices"]


def __getattr__(name: str) -> Any:
    if name == "Studio":
        from csm_repl.studio import studio as module
    elif name in __all__:
        from csm_repl.studio import open as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)
