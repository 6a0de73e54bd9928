"""The Python API of the original project: code written for it runs after changing the import line.

    from csm_repl import Segment, load_csm_1b

    generator = load_csm_1b(device="cuda")
    audio = generator.generate(text="Hello.", speaker=0, context=[], max_audio_length_ms=10_000)

Added to it: streaming (`generate_stream`, `generate_streaming_audio`), several takes side by side
(`generate_batch`), transformers' conversations and classes, scripts as turns (`read_script`), seeds, a prefix
cache (a context that starts like the last one is not computed again), and any CSM in either published layout.
Unlike the original it puts no watermark into the sound, and an argument that cannot be spoken is one
ValueError that names it.
"""

from csm_repl.api.generator import Generator, Segment, SpeechRequest, generate_streaming_audio
from csm_repl.api.load import load_csm_1b, load_csm_1b_local
from csm_repl.api.script import ScriptTurn, read_script
from csm_repl.api.torchaudio_files import keep_torchaudio_files
from csm_repl.api.transformers_forms import AutoProcessor, CsmForConditionalGeneration

__all__ = [
    "AutoProcessor",
    "CsmForConditionalGeneration",
    "Generator",
    "ScriptTurn",
    "Segment",
    "SpeechRequest",
    "generate_streaming_audio",
    "load_csm_1b",
    "load_csm_1b_local",
    "read_script",
]

keep_torchaudio_files()
