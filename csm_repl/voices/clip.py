"""One reference clip: its sound from the file, its words from the .txt or from Whisper."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Literal

from csm_repl.audio import SAMPLE_RATE, TooLongError, check_readable, read_mono, write_bytes_atomic
from csm_repl.errors import ClipError, OutputError
from csm_repl.voices.cache import ClipCache, content_digest
from csm_repl.voices.prepare import CUT_IT, MAX_FILE_SECONDS, PrepareOptions, prepare_clip

if TYPE_CHECKING:
    import torch

    from csm_repl.voices.transcribe import Transcriber

TranscriptOrigin = Literal["file", "whisper"]
Stamp = tuple[int, int, int, int]

# A minute of fast speech is 1,500 characters; what is longer than this is some other file.
_MAX_TRANSCRIPT_BYTES = 1 << 16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class ClipSound:
    """What the codec made of a clip."""

    digest: str
    """SHA-256 of the file's bytes, in hex."""
    seconds: float
    """Length as prepared."""
    codes: torch.Tensor | None
    """int64 `[K, T]`; None without a codec."""


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
        self._options = options
        self._stamp = file_stamp(path)

    @cached_property
    def samples(self) -> torch.Tensor:
        """float32 `[N]` at 24 kHz. ClipError where there is no using it."""
        try:
            x = read_mono(self.path, max_seconds=MAX_FILE_SECONDS)
        except TooLongError as error:
            raise ClipError(error.cause, CUT_IT) from error
        samples = prepare_clip(x[None], SAMPLE_RATE, self._options)
        self.check_settled()
        return samples

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

    def sound(self, recording: Recording, known: ClipSound | None) -> ClipSound:
        """The recording's sound; `known` itself where its content is the same. ClipError where unusable."""
        check_readable(recording.path)
        try:
            digest = content_digest(recording.path)
        except OSError as error:
            raise ClipError(f"The file cannot be read: {error.strerror}.", "Check its disk.") from error
        if known is not None and known.digest == digest:
            return known
        if self._encode is None:
            return ClipSound(digest, recording.samples.shape[0] / SAMPLE_RATE, None)
        cached = self._cache.codes(digest)
        if cached is not None:
            codes, seconds = cached
            return ClipSound(digest, seconds, codes)
        seconds = recording.samples.shape[0] / SAMPLE_RATE
        codes = self._encoded(self._encode, recording.samples)
        self._cache.store_codes(digest, codes, seconds)
        return ClipSound(digest, seconds, codes)

    def known_words(self, digest: str, txt: Path) -> Words | None:
        """The words in `txt`; None where it is missing, or Whisper's for a recording that was replaced since.

        Raises:
            ClipError: a transcript that cannot be used.
        """
        return self._written_words(digest, txt)[1]

    def has_to_listen(self, digest: str) -> bool:
        """Whether `heard_words` takes a while: nobody has heard these sounds before."""
        listener = self._transcriber
        return (
            listener is not None
            and listener.listens
            and self._cache.transcript(digest, listener.name) is None
        )

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
            if text is None:
                raise
            old = f"Whisper wrote {txt.name} for an earlier {recording.path.name}; check it. {error.cause}"
            return Words(text, "whisper", old)
        recording.check_settled()
        return self._written(heard, digest, txt, replace=text is not None)

    def _written_words(self, digest: str, txt: Path) -> tuple[str | None, Words | None]:
        """What `txt` says, and the same as words where they are the recording's."""
        text = _read_transcript(txt)
        if text is None:
            return None, None
        note = self._cache.note(txt)
        if note is None or note[1] != text:
            return text, Words(text, "file")
        return text, Words(text, "whisper") if note[0] == digest else None

    def _encoded(self, encode: Callable[[torch.Tensor], torch.Tensor], samples: torch.Tensor) -> torch.Tensor:
        import torch

        try:
            return encode(samples).to("cpu", torch.int64)
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ClipError(f"The codec cannot encode the clip: {reason}.", CUT_IT) from error

    def _heard(self, recording: Recording, digest: str, txt: Path) -> str:
        if self._transcriber is None:
            raise ClipError(f"There is no transcript {txt.name}.", "Write the words of the clip into it.")
        model = self._transcriber.name
        text = self._cache.transcript(digest, model)
        if text is None:
            text = _cleaned(self._transcriber.transcribe(recording.samples, SAMPLE_RATE))
            if not text:
                raise ClipError(
                    "Whisper heard no words in the clip.",
                    f"Write them into {txt.name}, or record the clip again.",
                )
            self._cache.store_transcript(digest, model, text)
        return text

    def _written(self, text: str, digest: str, txt: Path, *, replace: bool) -> Words:
        try:
            write_bytes_atomic(txt, f"{text}\n".encode(), replace=replace)
        except FileExistsError:
            own = _read_transcript(txt)  # the user was faster than Whisper
            if own is not None:
                return Words(own, "file")
            return Words(text, "whisper", f"The transcript cannot be saved: {txt.name} is a broken link.")
        except OutputError as error:
            return Words(text, "whisper", f"Whisper's transcript is used, but not saved: {error.cause}")
        self._cache.store_note(txt, digest, text)
        return Words(text, "whisper", f"Whisper wrote {txt.name}; correct it there where it is wrong.")


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
            raise ClipError(f"The transcript {txt.name} is not a file.", "Put a text file in its place.")
        data = txt.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClipError(
            f"The transcript {txt.name} cannot be read: {error.strerror}.",
            "Check the permissions of the file.",
        ) from error
    if len(data) > _MAX_TRANSCRIPT_BYTES:
        raise ClipError(
            f"{txt.name} is too long to be a clip's transcript.", "Put only the words of the clip into it."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(txt) from error
    if "\0" in text:  # UTF-16 without its mark
        raise _not_utf8(txt)
    text = _cleaned(text)
    if not text:
        raise ClipError(
            f"The transcript {txt.name} is empty.",
            "Write the words of the clip into it, or delete it so that Whisper does.",
        )
    return text


def _not_utf8(txt: Path) -> ClipError:
    return ClipError(f"The transcript {txt.name} is not UTF-8.", "Save it again as UTF-8.")


def _cleaned(text: str) -> str:
    """One line, without control characters, which would reach the terminal."""
    return " ".join(_CONTROL.sub(" ", text).split())
