"""Whisper for clips without a transcript.

The model is loaded at the first clip and let go with `close`, so that it takes no memory while CSM speaks.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from csm_repl.audio import resample
from csm_repl.errors import ClipError
from csm_repl.terminal import held_interrupts
from csm_repl.text.duration import expected_seconds

if TYPE_CHECKING:
    from types import TracebackType

    import torch

_WHISPER_RATE = 16_000
_WINDOW_SECONDS = 30.0
_SILENT_SERVER_SECONDS = 30.0
# As in Whisper's own command and paper (Radford et al. 2022, 4.5): decoding is repeated at the next
# temperature while the text is too repetitive or too unlikely.
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_COMPRESSION = 2.4
_LEAST_LOGPROB = -1.0
_MOST_NO_SPEECH = 0.6
_FASTEST = 3.0
"""How many times faster than people usually talk a text can be and still have been said."""

_BY_HAND = (
    "Write the words of the clip into a .txt file of the same name, or give a Whisper model with "
    "--whisper-model FILE."
)
_DOUBTFUL = (
    "Listen to it, and write its words into a .txt file of the same name; or give a larger model with "
    "--whisper-model."
)


class DoubtfulWordsError(ClipError):
    """What was heard is probably not what was said."""


class Transcriber(Protocol):
    """Anything that writes down what is said in a clip."""

    @property
    def name(self) -> str:
        """Which model; another name may hear other words."""

    @property
    def listens(self) -> bool:
        """False: every clip raises ClipError."""

    def transcribe(self, samples: torch.Tensor, rate: int) -> str:
        """The words in float `[N]` at `rate` Hz, '' where there are none.

        Raises:
            DoubtfulWordsError: it has heard something that is better not believed.
            ClipError: it cannot listen; the sentence says why, the remedy how to do without.
        """

    def close(self) -> None:
        """Free the memory. The next `transcribe` loads again."""


class WhisperTranscriber:
    """openai-whisper, loaded when needed.

    Args:
        model: a size ('base', 'turbo', ...), a checkpoint file, 'auto' (turbo on a GPU, base on a CPU)
            or 'off' (every clip raises ClipError).
        device: 'cpu', 'cuda', 'cuda:1' or 'mps'.
        offline: never download; only a file, or what an earlier download left.
        download_root: where checkpoints are kept; by default Whisper's own cache folder.
    """

    def __init__(
        self, model: str, device: str, *, offline: bool = False, download_root: Path | None = None
    ) -> None:
        self._on_cuda = device.startswith("cuda")
        # Whisper keeps a sparse buffer, which MPS has no support for.
        self._device = device if self._on_cuda else "cpu"
        if model == "auto":
            model = "turbo" if self._on_cuda else "base"
        self._name = model
        self._offline = offline
        # The same place as Whisper's, which offline has to be looked into.
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
        self._download_root = download_root or Path(cache, "whisper")
        self._model: Any = None
        self._failure: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def listens(self) -> bool:
        return self._name != "off"

    def __enter__(self) -> WhisperTranscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._failure = None
        if self._model is None:
            return
        self._model = None
        if self._on_cuda:
            import torch

            torch.cuda.empty_cache()

    def transcribe(self, samples: torch.Tensor, rate: int) -> str:
        if self._failure is not None:
            # Ten clips need not wait ten times for a network that is not there.
            raise ClipError(*self._failure)
        if self._model is None:
            try:
                self._model = self._load()
            except ClipError as error:
                self._failure = error.cause, error.remedy
                raise
        sound = resample(samples, rate, _WHISPER_RATE).cpu().numpy()
        try:
            with self._repeatable():
                result = self._model.transcribe(
                    sound,
                    fp16=self._on_cuda,
                    # Up to one window there is nothing to seek to, and the words come out surer without.
                    without_timestamps=len(sound) <= _WINDOW_SECONDS * _WHISPER_RATE,
                    condition_on_previous_text=False,
                    temperature=_TEMPERATURES,
                    compression_ratio_threshold=_MOST_COMPRESSION,
                    logprob_threshold=_LEAST_LOGPROB,
                    no_speech_threshold=_MOST_NO_SPEECH,
                )
        except Exception as error:
            raise ClipError(f"Whisper ({self._name}) failed: {_reason(error)}.", _BY_HAND) from error
        text = " ".join(str(result["text"]).split())
        doubt = _doubt(text, result["segments"], len(sound) / _WHISPER_RATE)
        if doubt:
            raise DoubtfulWordsError(f"Whisper ({self._name}) {doubt}, so its text is not used.", _DOUBTFUL)
        return text

    @contextmanager
    def _repeatable(self) -> Iterator[None]:
        """Random numbers are the same ones each time, and everybody else's stay as they were."""
        import torch

        with torch.random.fork_rng(range(torch.cuda.device_count()) if self._on_cuda else []):
            torch.manual_seed(0)
            yield

    def _load(self) -> Any:
        if not self.listens:
            raise ClipError("The clip has no transcript, and Whisper is off.", _BY_HAND)
        with held_interrupts():
            import whisper

        source = self._source(whisper._MODELS)
        try:
            with _network_timeout():
                return whisper.load_model(source, self._device, download_root=str(self._download_root))
        except Exception as error:
            raise ClipError(
                f"Whisper's model {self._name} cannot be loaded: {_reason(error)}.", _BY_HAND
            ) from error

    def _source(self, urls: dict[str, str]) -> str:
        """What `whisper.load_model` is to load; ClipError where that can be known to fail."""
        path = Path(os.path.expanduser(self._name))  # noqa: PTH111 - Path's own raises for an unknown user
        if self._name not in urls:
            if path.is_file():
                return str(path)
            if path.suffix or len(path.parts) > 1:
                raise ClipError(f"There is no Whisper model file {path}.", _BY_HAND)
            raise ClipError(
                f"Whisper has no model {self._name!r}.",
                f"It has {', '.join(urls)}; a .pt file works as well.",
            )
        if not self._offline:
            return self._name
        cached = self._download_root / urls[self._name].rsplit("/", 1)[-1]
        if not cached.is_file():
            raise ClipError(
                f"Whisper's model {self._name} is not on this machine, and --offline is set.", _BY_HAND
            )
        # As a path: for a size, load_model would download again what does not match its checksum.
        return str(cached)


def _doubt(text: str, segments: list[dict[str, Any]], seconds: float) -> str:
    """Why the text is better not used, as the end of a sentence; '' where it is good.

    Args:
        segments: Whisper's; what it took for silence is not among them.
        seconds: length of the sound.
    """
    if any(segment["compression_ratio"] > _MOST_COMPRESSION for segment in segments):
        return "heard the same words over and over"
    if any(segment["avg_logprob"] < _LEAST_LOGPROB for segment in segments):
        return "could not make out the words"
    if any(segment["no_speech_prob"] > _MOST_NO_SPEECH for segment in segments):
        return "is not sure that anybody speaks in it"
    if text and expected_seconds(text) > _FASTEST * seconds + 0.5:
        return f"heard more words than fit into {seconds:.1f} s"
    return ""


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Whisper's download has no timeout; a server that never answers would hold up the start for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_SERVER_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception) -> str:
    """Half a sentence for what Whisper, torch or the network raised."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full"
    if isinstance(error, OSError):  # URLError is one
        return f"{getattr(error, 'reason', None) or error.strerror or error}"
    if not isinstance(error, (RuntimeError, MemoryError)):
        return f"the file is damaged, or no Whisper checkpoint ({type(error).__name__}: {error})"
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".:") if lines else "") or type(error).__name__
