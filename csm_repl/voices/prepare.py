"""A recording of any kind into what the codec encodes: 24 kHz mono, level speech, no long silences."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from csm_repl.audio import (
    SAMPLE_RATE,
    TooLongError,
    amplify,
    import_pydub,
    resample,
    speech_level,
    to_mono,
    to_pcm16,
)
from csm_repl.errors import ClipError

if TYPE_CHECKING:
    import torch

    from csm_repl.settings import Settings

MAX_CLIP_SECONDS = 60.0
"""Longest prepared clip: 750 of the context's 2048 positions. A longer one is refused and not cut, because it
would no longer match its transcript; one without a transcript is cut."""

MAX_FILE_SECONDS = 300.0
"""Longest recording that is looked at: none with over four minutes of silence is meant as a clip."""

CUT_BETWEEN_S = 10.0, 20.0
"""Where a recording is cut that is longer than MAX_CLIP_SECONDS and has no transcript yet."""

MIN_CLIP_SECONDS = 0.08
"""One codec frame."""

TARGET_DBFS = -23.0
"""Level of the speech in a prepared clip: that of broadcasts. Speech peaks 12-20 dB above it."""

# What needs more sits at the noise of a 16-bit recording, and would come out as hiss.
_MAX_GAIN_DB = 40.0
_VERSION = 2  # part of every cache key; raise it when the same options give other samples
_PER_MS = SAMPLE_RATE // 1000
# Soft starts of words, /f/ or /h/, lie below the threshold.
_EDGE_MS = 100
# Long enough for no click, short enough to stay inside what is left of a silence.
_FADE_MS = 5
_STEP_MS = 10
CUT_IT = "Cut it to 5-30 s, and its transcript with it."
_RECORD = "Record 5-30 s of speech."


@dataclass(frozen=True)
class PrepareOptions:
    """How clips are prepared; see the settings of the same names."""

    shorten_silence: bool = True
    """Shorten inner silences, trim the ones at both ends."""
    silence_threshold_db: float = -45.0
    """dBFS in a clip whose speech is at TARGET_DBFS."""
    silence_min_ms: int = 700
    """Inner silences from this length on are shortened."""
    silence_keep_ms: int = 300
    """What is left of them."""

    @classmethod
    def from_settings(cls, settings: Settings) -> PrepareOptions:
        return cls(
            settings.shorten_silence,
            settings.silence_threshold_db,
            settings.silence_min_ms,
            settings.silence_keep_ms,
        )

    @property
    def fingerprint(self) -> str:
        """Equal where the same recording gives the same samples."""
        return repr((_VERSION, *astuple(self)))


def prepare_clip(
    x: torch.Tensor, rate: int, options: PrepareOptions, *, max_seconds: float = MAX_CLIP_SECONDS
) -> torch.Tensor:
    """Downmix, resample, level and shorten a recording.

    Args:
        x: float `[C, N]`, any C from 1 and any N, finite.
        rate: Hz.

    Returns:
        float32 `[N]` at 24 kHz, between MIN_CLIP_SECONDS and `max_seconds` long.

    Raises:
        TooLongError: too long.
        ClipError: too short, or nothing in it.
    """
    seconds = x.shape[-1] / rate
    if seconds > (MAX_FILE_SECONDS if options.shorten_silence else max_seconds):
        _refuse_long(seconds)
    if seconds < MIN_CLIP_SECONDS:
        _refuse_short(seconds)
    mono = to_mono(x.float())
    # Old 8-bit recordings have an offset, which would count as sound in every silence.
    mono = resample(mono - mono.mean(), rate, SAMPLE_RATE)
    level = speech_level(mono)
    gain_db = 0.0 if level is None else min(TARGET_DBFS - level, _MAX_GAIN_DB)
    if level is None or level + gain_db < options.silence_threshold_db:
        raise ClipError("The clip holds no speech: it is silent, or nearly so.", _RECORD)
    # What could not be raised to the target has softer sounds as well, which are no silence.
    threshold = options.silence_threshold_db + (level + gain_db - TARGET_DBFS)
    mono = _without_silence(amplify(mono, gain_db), options, threshold)
    seconds = mono.shape[0] / SAMPLE_RATE
    if seconds > max_seconds:
        _refuse_long(seconds)
    if seconds < MIN_CLIP_SECONDS:
        _refuse_short(seconds)
    return mono


def cut_at_pause(x: torch.Tensor) -> torch.Tensor:
    """`[N]` at 24 kHz up to its quietest moment between 10 and 20 s; all of it if it is shorter."""
    earliest, latest = (round(seconds * SAMPLE_RATE) for seconds in CUT_BETWEEN_S)
    if x.shape[0] <= latest:
        return x
    step = SAMPLE_RATE // 100
    power = x[earliest:latest].double().square().reshape(-1, step).mean(dim=1)
    # A fifth of a second: more than the gap before a plosive, less than any pause between sentences.
    quiet = power.unfold(0, 20, 1).mean(dim=1)
    return x[: earliest + (int(quiet.argmin()) + 10) * step]


def _refuse_long(seconds: float) -> NoReturn:
    raise TooLongError(f"The clip is {seconds:.0f} s long; a voice can use {MAX_CLIP_SECONDS:.0f} s.", CUT_IT)


def _refuse_short(seconds: float) -> NoReturn:
    raise ClipError(
        f"The clip is {1000 * seconds:.3g} ms long; the codec needs {1000 * MIN_CLIP_SECONDS:.0f} ms.",
        _RECORD,
    )


def _without_silence(x: torch.Tensor, options: PrepareOptions, threshold: float) -> torch.Tensor:
    """`[N]` at 24 kHz; what is below `threshold`, in dBFS, is silence. ClipError where all of it is."""
    pydub = import_pydub()
    segment: Any = pydub.AudioSegment(data=to_pcm16(x), sample_width=2, frame_rate=SAMPLE_RATE, channels=1)
    lead = pydub.silence.detect_leading_silence(segment, threshold, _STEP_MS)
    if lead >= len(segment):
        raise ClipError("The clip holds no speech: it is silent, or nearly so.", _RECORD)
    if not options.shorten_silence:
        return x
    tail = pydub.silence.detect_leading_silence(segment.reverse(), threshold, _STEP_MS)
    start = max(0, lead - _EDGE_MS)
    end = min(len(segment), len(segment) - tail + _EDGE_MS)
    gaps = pydub.silence.detect_silence(segment[start:end], options.silence_min_ms, threshold, _STEP_MS)
    pieces, at = [], start
    for gap_start, gap_end in gaps:
        excess = gap_end - gap_start - options.silence_keep_ms
        if excess > _FADE_MS:
            cut = start + gap_start + options.silence_keep_ms // 2
            pieces.append(x[at * _PER_MS : cut * _PER_MS])
            at = cut + excess
    # A segment counts whole milliseconds, so at the very end up to one of them is not in `end`.
    stop = x.shape[0] if end == len(segment) else end * _PER_MS
    pieces.append(x[at * _PER_MS : stop])
    return _join(pieces)


def _join(pieces: list[torch.Tensor]) -> torch.Tensor:
    """`[N]` pieces one after the other, cross-faded."""
    import torch

    joined = pieces[0]
    for piece in pieces[1:]:
        n = min(_FADE_MS * _PER_MS, joined.shape[0], piece.shape[0])
        ramp = torch.linspace(0.0, 1.0, n)
        split = joined.shape[0] - n
        cross = joined[split:] * (1 - ramp) + piece[:n] * ramp
        joined = torch.cat([joined[:split], cross, piece[n:]])
    return joined
