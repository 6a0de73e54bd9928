"""The references folder: scan, prepare, transcribe, cache.

    names        which speaker a file belongs to, from its name
    prepare      any recording into 24 kHz mono without long silences
    transcribe   Whisper, for clips without a transcript
    cache        codes and transcripts by content, on disk
    clip         one clip: its sound and its words
    pronounce_file  the user's own table of how words are said
    folder       all of them, and what has changed since the last look
    listing      who has a clip, by the names of the files alone

What is named here is imported when it is first asked for: a script can be rehearsed with the names of the
clips alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csm_repl.voices.folder import Change, Clip, IgnoredFile, UnusableClip, VoiceFolder
    from csm_repl.voices.names import ClipName, parse_name
    from csm_repl.voices.prepare import MAX_CLIP_SECONDS, PrepareOptions, prepare_clip
    from csm_repl.voices.transcribe import Transcriber, WhisperTranscriber

__all__ = [
    "MAX_CLIP_SECONDS",
    "Change",
    "Clip",
    "ClipName",
    "IgnoredFile",
    "PrepareOptions",
    "Transcriber",
    "UnusableClip",
    "VoiceFolder",
    "WhisperTranscriber",
    "parse_name",
    "prepare_clip",
]
_MODULES = {
    "names": ("ClipName", "parse_name"),
    "prepare": ("MAX_CLIP_SECONDS", "PrepareOptions", "prepare_clip"),
    "transcribe": ("Transcriber", "WhisperTranscriber"),
    "folder": ("Change", "Clip", "IgnoredFile", "UnusableClip", "VoiceFolder"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"csm_repl.voices.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
