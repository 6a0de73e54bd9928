"""The references folder: scan, prepare, transcribe, cache.

    names        which speaker a file belongs to, from its name
    prepare      any recording into 24 kHz mono without long silences
    transcribe   Whisper, for clips without a transcript
    cache        codes and transcripts by content, on disk
    clip         one clip: its sound and its words
    pronounce_file  the user's own table of how words are said
    folder       all of them, and what has changed since the last look

Importing it imports neither torch nor an audio library, and not `pronounce_file`, which compiles all rules of
`text.normalise`.
"""

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
