"""Sound in files and on stdout: read, write, resample, downmix, level.

The only place that touches audio files:

    samples      arithmetic: downmix, resample, level, 16 bit
    containers   what a file holds, whatever its header says
    read         files into samples
    encoder      libsndfile behind a file object, for the two that follow
    write        samples and bytes into files, whole or not at all
    sink         one stream of samples into one file or stdout, for `-o`

Samples are float32 in [-1, 1], tensors `[N]` (mono) or `[C, N]`. Importing it imports neither torch nor an
audio library.
"""

from csm_repl.audio.read import (
    TooLongError,
    check_readable,
    import_pydub,
    missing_seconds,
    read_audio,
    read_mono,
)
from csm_repl.audio.samples import SAMPLE_RATE, amplify, resample, speech_level, to_mono, to_pcm16
from csm_repl.audio.sink import AudioSink, open_sink
from csm_repl.audio.write import output_error, write_audio, write_bytes_atomic

__all__ = [
    "SAMPLE_RATE",
    "AudioSink",
    "TooLongError",
    "amplify",
    "check_readable",
    "import_pydub",
    "missing_seconds",
    "open_sink",
    "output_error",
    "read_audio",
    "read_mono",
    "resample",
    "speech_level",
    "to_mono",
    "to_pcm16",
    "write_audio",
    "write_bytes_atomic",
]
