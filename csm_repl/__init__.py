"""csm-repl: an interactive multi-speaker speech console around Sesame's CSM-1B.

    from csm_repl import load_csm_1b

    generator = load_csm_1b()
    audio = generator.generate(text="Hello from Sesame.", speaker=0, context=[])

Importing this package is cheap; torch is imported when one of its names is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = [
    "AutoProcessor",
    "CsmForConditionalGeneration",
    "Generator",
    "ScriptTurn",
    "Segment",
    "SpeechRequest",
    "__version__",
    "generate_streaming_audio",
    "load_csm_1b",
    "load_csm_1b_local",
    "read_script",
]
__version__ = "0.1.0"

if TYPE_CHECKING:
    from csm_repl.api import (
        AutoProcessor,
        CsmForConditionalGeneration,
        Generator,
        ScriptTurn,
        Segment,
        SpeechRequest,
        generate_streaming_audio,
        load_csm_1b,
        load_csm_1b_local,
        read_script,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("csm_repl.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
