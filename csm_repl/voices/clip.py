"""One reference clip: its sound from the file, its words from the .txt or from Whisper."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Literal

from csm_repl.audio import (
    SAMPLE_RATE,
    TooLongError,
    check_readable,
    missing_seconds,
    read_mono,
    write_bytes_atomic,
)
from csm_repl.errors import ClipError, OutputError
from csm_repl.voices.cache import CachedCodes, CachedWords, ClipCache, WhisperNote, content_digest
from csm_repl.voices.prepare import (
    CUT_IT,
    MAX_CLIP_SECONDS,
    MAX_FILE_SECONDS,
    PrepareOptions,
    cut_at_pause,
    prepare_clip,
)
from csm_repl.voices.transcribe import DoubtfulWordsError, Transcriber

if TYPE_CHECKING:
    import torch

TranscriptOrigin = Literal["file", "whisper"]
Stamp = tuple[int, int, int, int]

# A minute of fast speech is 1,500 characters; what is longer than this is some other file.
_MAX_TRANSCRIPT_BYTES = 1 << 16
_MOST_BYTES = 1 << 30
"""Five minutes in stereo, at 96 kHz and 32 bits, are 230 MB."""
_START_S = 120.0
"""What is read of a recording of which the first 10 to 20 s are used; half of it may be silence."""
_MUCH_S = 2.0
"""Less than this may be missing without a word: a pause at both ends."""
_CUT_SHORT_S = 0.2
"""What a header says too much by more than this is more than an encoder's padding."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NoTranscriptError(ClipError):
    """Nobody has written down what is said, and nobody can listen."""


@dataclass(frozen=True)
class ClipSound:
    """What the codec made of a clip."""

    digest: str
    """SHA-256 of the file's bytes, in hex."""
    seconds: float
    """Length as prepared."""
    recorded_s: float
    """Length as recorded, as far as it was read."""
    codes: torch.Tensor | None
    """int64 `[K, T]`; None without a codec."""
    is_start: bool = False
    """Only the start of a recording that is too long."""
    missing_s: float = 0.0
    """How much more its header says there is."""

    @property
    def remark(self) -> str:
        """Whole sentences where much of the recording is not there or not used, else ''."""
        if self.missing_s > _CUT_SHORT_S:
            return (
                f"It seems to be cut short: its header says {self.recorded_s + self.missing_s:.1f} s, and "
                f"there are {self.recorded_s:.1f}. Copy or save it again, or leave what is missing out of "
                "its transcript."
            )
        if self.is_start:
            return (
                f"It is too long for a voice and had no transcript, so its first {self.seconds:.0f} s are "
                "used, up to a pause."
            )
        left_out = self.recorded_s - self.seconds
        if left_out > _MUCH_S and left_out > self.seconds:
            return (
                f"Only {self.seconds:.1f} of its {self.recorded_s:.1f} s are used: the rest is silence. "
                "If speech is missing, cut out what is far louder, or record it again."
            )
        return ""


@dataclass(frozen=True)
class Words:
    """What is said in a clip."""

    text: str
    origin: TranscriptOrigin
    notice: str = ""
    """Whole sentence for the user; '' where there is nothing to say."""


class Recording:
    """A clip's file, read and prepared when its samples are first asked for."""

    def __init__(self, path: Path, options: PrepareOptions) -> None:
        self.path = path
        self.may_be_cut = False
        """Take the start of what is too long; set before the samples are asked for."""
        self.is_start = False
        """Whether the samples are only the start."""
        self.recorded_s = 0.0
        """Length before it was prepared; known with the samples."""
        self._options = options
        self._stamp = file_stamp(path)

    @cached_property
    def samples(self) -> torch.Tensor:
        """float32 `[N]` at 24 kHz. ClipError where there is no using it."""
        try:
            samples = self._prepared(MAX_CLIP_SECONDS, max_seconds=MAX_FILE_SECONDS)
        except TooLongError as error:
            if not self.may_be_cut:
                raise ClipError(error.cause, CUT_IT) from error
            samples = cut_at_pause(self._prepared(math.inf, end_s=_START_S))
            self.is_start = True
        self.check_settled()
        return samples

    def _prepared(
        self, most_s: float, *, max_seconds: float | None = None, end_s: float | None = None
    ) -> torch.Tensor:
        x = read_mono(self.path, max_seconds=max_seconds, end_s=end_s)
        self.recorded_s = x.shape[0] / SAMPLE_RATE
        return prepare_clip(x[None], SAMPLE_RATE, self._options, max_seconds=most_s)

    def check_settled(self) -> None:
        """ClipError where the file is no longer what it was, as while it is being copied."""
        if file_stamp(self.path) != self._stamp:
            raise ClipError("The file is still being written.", "It is checked again before the next line.")


class ClipLoader:
    """Gets the sound and the words of recordings, from the cache where they are known.

    Args:
        options: how clips are prepared.
        encode: float32 `[N]` at 24 kHz -> int64 `[K, T]`; None to do without codes.
        transcriber: for clips without a .txt; None to do without.
        cache: of codes and transcripts.
    """

    def __init__(
        self,
        options: PrepareOptions,
        encode: Callable[[torch.Tensor], torch.Tensor] | None,
        transcriber: Transcriber | None,
        cache: ClipCache,
    ) -> None:
        self._options = options
        self._encode = encode
        self._transcriber = transcriber
        self._cache = cache

    def open(self, path: Path) -> Recording:
        return Recording(path, self._options)

    def close(self) -> None:
        """Free what transcribing took."""
        if self._transcriber is not None:
            self._transcriber.close()

    def sound(self, recording: Recording, txt: Path, known: ClipSound | None) -> ClipSound:
        """The recording's sound; `known` itself where that still holds. ClipError where it is unusable.

        Args:
            txt: its transcript. Without one a recording that is too long is cut.
        """
        check_readable(recording.path)
        try:
            n_bytes = recording.path.stat().st_size
            if n_bytes > _MOST_BYTES:
                raise ClipError(f"The file has {n_bytes / 1e9:.1f} GB, more than any clip.", CUT_IT)
            digest = content_digest(recording.path)
        except OSError as error:
            raise ClipError(f"The file cannot be read: {error.strerror}.", "Check its disk.") from error
        recording.may_be_cut = self._may_be_cut(digest, txt)
        if known is not None and known.digest == digest and (recording.may_be_cut or not known.is_start):
            recording.is_start = known.is_start
            return known
        if self._encode is None:
            seconds = recording.samples.shape[0] / SAMPLE_RATE
            return _sound(recording, digest, seconds, recording.recorded_s, None)
        for is_start in (False, True) if recording.may_be_cut else (False,):
            cached = self._cache.codes(digest, is_start=is_start)
            if cached is not None:
                recording.is_start = is_start
                return _sound(recording, digest, cached.seconds, cached.recorded_s, cached.codes)
        seconds = recording.samples.shape[0] / SAMPLE_RATE
        codes = self._encoded(self._encode, recording.samples)
        entry = CachedCodes(codes, seconds, recording.recorded_s)
        self._cache.store_codes(digest, entry, is_start=recording.is_start)
        return _sound(recording, digest, seconds, recording.recorded_s, codes)

    def _may_be_cut(self, digest: str, txt: Path) -> bool:
        """Whether there are no words yet, or those of the start, which the user may have corrected since."""
        if file_stamp(txt) is None:
            return True
        note = self._cache.note(txt)
        return note is not None and note.clip == digest and note.is_start

    def known_words(self, digest: str, txt: Path) -> Words | None:
        """The words in `txt`; None where it is missing, or Whisper's for a recording that was replaced since.

        Raises:
            ClipError: a transcript that cannot be used.
        """
        return self._written_words(digest, txt)[1]

    def has_to_listen(self, digest: str) -> bool:
        """Whether `heard_words` takes a while: nobody has heard these sounds before."""
        listener = self._transcriber
        return listener is not None and listener.listens and self._cache.words(digest, listener.name) is None

    def heard_words(self, recording: Recording, digest: str, txt: Path) -> Words:
        """What Whisper hears, written to `txt`. For a recording that `known_words` has no words of.

        What Whisper wrote for an earlier recording is used where nobody can listen. The user's own words
        are never touched.

        Raises:
            ClipError: nobody can listen, or there is nothing to hear.
        """
        text, known = self._written_words(digest, txt)
        if known is not None:  # the user was faster
            return known
        try:
            heard = self._heard(recording, digest, txt)
        except ClipError as error:
            if text is None or isinstance(error, DoubtfulWordsError):
                raise
            old = f"Whisper wrote {txt.name} for an earlier {recording.path.name}; check it. {error.cause}"
            return Words(text, "whisper", old)
        recording.check_settled()
        return self._written(WhisperNote(digest, heard, recording.is_start), txt, replace=text is not None)

    def _written_words(self, digest: str, txt: Path) -> tuple[str | None, Words | None]:
        """What `txt` says, and the same as words where they are the recording's."""
        text = _read_transcript(txt)
        if text is None:
            return None, None
        note = self._cache.note(txt)
        if note is None or note.text != text:
            return text, Words(text, "file")
        return text, Words(text, "whisper") if note.clip == digest else None

    def _encoded(self, encode: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor) -> torch.Tensor:
        import torch

        try:
            return encode(samples).to("cpu", torch.int64)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ClipError(f"The codec cannot encode the clip: {reason}.", CUT_IT) from error

    def _heard(self, recording: Recording, digest: str, txt: Path) -> str:
        if self._transcriber is None:
            raise NoTranscriptError("It has no transcript.", f"Write the words of the clip into {txt.name}.")
        model = self._transcriber.name
        words = self._cache.words(digest, model)
        if words is None:
            try:
                words = CachedWords(_cleaned(self._transcriber.transcribe(recording.samples, SAMPLE_RATE)))
                if not words.text:
                    words = CachedWords(
                        "",
                        "Whisper heard no words in the clip.",
                        f"Write them into {txt.name}, or record the clip again.",
                    )
            except DoubtfulWordsError as error:
                words = CachedWords("", error.cause, error.remedy)
            self._cache.store_words(digest, model, words)
        if words.doubt:
            raise DoubtfulWordsError(words.doubt, words.remedy)
        return words.text

    def _written(self, note: WhisperNote, txt: Path, *, replace: bool) -> Words:
        text = note.text
        try:
            write_bytes_atomic(txt, f"{text}\n".encode(), replace=replace)
        except FileExistsError:
            own = _read_transcript(txt)  # the user was faster than Whisper
            if own is not None:
                return Words(own, "file")
            return Words(text, "whisper", f"The transcript cannot be saved: {txt.name} is a broken link.")
        except OutputError as error:
            return Words(text, "whisper", f"Whisper's transcript is used, but not saved: {error.cause}")
        self._cache.store_note(txt, note)
        return Words(text, "whisper", f"Whisper wrote {txt.name}; correct it there where it is wrong.")


def _sound(
    recording: Recording, digest: str, seconds: float, recorded_s: float, codes: torch.Tensor | None
) -> ClipSound:
    missing_s = 0.0 if recording.is_start else missing_seconds(recording.path, recorded_s)
    return ClipSound(digest, seconds, recorded_s, codes, recording.is_start, missing_s)


def file_stamp(path: Path) -> Stamp | None:
    """What changes when a file or its rights do: times (ns), bytes, inode. None where there is not a file."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino


def _read_transcript(txt: Path) -> str | None:
    """The words on one line; None where there is not a file."""
    try:
        if not S_ISREG(txt.stat().st_mode):
            raise ClipError("Its transcript is not a file.", f"Make {txt.name} a text file.")
        data = txt.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClipError(
            f"Its transcript cannot be read: {error.strerror}.", f"Check the permissions of {txt.name}."
        ) from error
    if len(data) > _MAX_TRANSCRIPT_BYTES:
        raise ClipError("Its transcript is far too long.", f"Put only the words of the clip into {txt.name}.")
    try:
        # UTF-32's mark begins like that of UTF-16, and gives zeros.
        has_mark = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if has_mark else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(txt) from error
    if "\0" in text:  # UTF-16 without its mark, or UTF-32
        raise _not_utf8(txt)
    text = _cleaned(text)
    if not text:
        raise ClipError(
            "Its transcript is empty.",
            f"Write the words of the clip into {txt.name}, or delete it so that Whisper does.",
        )
    return text


def _not_utf8(txt: Path) -> ClipError:
    return ClipError("Its transcript is not UTF-8.", f"Save {txt.name} again as UTF-8.")


def _cleaned(text: str) -> str:
    """One line, without control characters, which would reach the terminal."""
    return " ".join(_CONTROL.sub(" ", text).split())
