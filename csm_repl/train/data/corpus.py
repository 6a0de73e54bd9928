"""From descriptions to items: sounds are read, prepared, encoded once and kept; words are found.

What cannot be used is reported and left out; it is an error only if nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch

from csm_repl.audio import SAMPLE_RATE
from csm_repl.codec import Codec
from csm_repl.engine.prompt import spoken_text
from csm_repl.errors import ClipError, OutOfMemoryError, UsageError
from csm_repl.model.device import out_of_memory
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.code_cache import CodeCache
from csm_repl.train.data.items import EncodedTurn, Item
from csm_repl.train.data.manifest import Manifest, ManifestEntry, Utterance
from csm_repl.train.data.sounds import FileSound, LazySound
from csm_repl.train.events import DataEvent, LeftOut, LeftOutTotal, Note, Reading
from csm_repl.train.options import DataOptions
from csm_repl.voices.cache import ClipCache
from csm_repl.voices.clip import ClipLoader
from csm_repl.voices.prepare import MAX_FILE_SECONDS, PrepareOptions, prepare_clip
from csm_repl.voices.transcribe import Transcriber

__all__ = ["Corpus", "CorpusReader"]

_READERS = 4
"""Threads that read and resample ahead of the codec."""
_AHEAD = 16
"""Sounds that are read and not yet encoded: bounds the memory, at half a minute each under 50 MB."""
_PROGRESS_EVERY_S = 0.1
_MOST_REASONS = 12
_MUCH_S = 1.0
_MISSING_S = 0.5
"""Lists round their times; words are missing where the file ends that much before its part."""


@dataclass(frozen=True)
class Corpus:
    """What is trained on."""

    items: tuple[Item, ...]
    n_left_out: int
    frame_rate: float
    """Frames a second."""

    @property
    def seconds(self) -> float:
        """Of sound."""
        return sum(item.n_frames for item in self.items) / self.frame_rate


@dataclass(frozen=True)
class _Fetched:
    """What a reading thread found out about a sound."""

    digest: str
    stamp: str | None
    samples: torch.Tensor | None
    """float32 [N] at 24 kHz, prepared; None where the codes are known."""
    recorded_s: float = 0.0
    """Length before it was prepared; with samples only."""


class _LeftOutCount:
    """Counts what is left out by its cause, in which figures and names do not matter."""

    _DETAIL = re.compile(r"\d+(?:[.,]\d+)*|'[^']*'|\"[^\"]*\"")

    def __init__(self) -> None:
        self.n = 0
        self._by_cause: dict[str, LeftOut] = {}
        self._n_by_cause: Counter[str] = Counter()

    @property
    def first(self) -> LeftOut:
        return next(iter(self._by_cause.values()))

    def add(self, left_out: LeftOut) -> LeftOut:
        self.n += 1
        key = self._DETAIL.sub("#", left_out.cause)
        self._by_cause.setdefault(key, left_out)
        self._n_by_cause[key] += 1
        return left_out

    def total(self, n_items: int) -> LeftOutTotal:
        reasons = [
            (self._by_cause[key].cause, n, self._by_cause[key].name)
            for key, n in self._n_by_cause.most_common(_MOST_REASONS)
        ]
        return LeftOutTotal(self.n, self.n + n_items, tuple(reasons))


class CorpusReader:
    """Reads one manifest.

    Args:
        codec: makes the codes.
        tokenizer: counts the positions of the words.
        max_positions: items with more are left out.
        options: how sounds are prepared, and how long they may be.
        cache: codes by content.
        words: finds the words of clips; see `word_finder`.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        tokenizer: Tokenizer,
        max_positions: int,
        options: DataOptions,
        cache: CodeCache,
        words: ClipLoader,
    ) -> None:
        self._codec = codec
        self._tokenizer = tokenizer
        self._max_positions = max_positions
        self._options = options
        self._prepare = prepare_options(options)
        self._cache = cache
        self._words = words
        self._n_encoded = 0
        self._n_heard = 0
        self._mostly_silent: list[tuple[LazySound, float, float]] = []
        """Sounds of which less than half is used: seconds used, seconds recorded."""
        self._found: dict[LazySound, str | ClipError] = {}
        self._numbers: Mapping[str, int] = {}

    def read(self, manifest: Manifest) -> Generator[DataEvent, None, Corpus]:
        """All items of the manifest, in its order; the events say what happens on the way.

        Raises:
            UsageError: not one item can be used.
            OutOfMemoryError: the codec does not fit.
        """
        self._numbers = manifest.numbers
        yield from (Note(note) for note in manifest.notes)
        items: list[Item] = []
        left_out = _LeftOutCount()
        for problem in manifest.problems:
            yield left_out.add(LeftOut(problem.name, problem.cause, problem.remedy))
        left_out.n += manifest.n_more_problems
        started = reported = time.perf_counter()
        n_done, n_frames = 0, 0
        try:
            yield from self._encode(manifest, started)
            self._cache.flush()
            for entry in manifest.entries:
                item = self._item(entry)
                n_done += len(entry.turns)
                if isinstance(item, LeftOut):
                    yield left_out.add(item)
                else:
                    items.append(item)
                    n_frames += item.n_frames
                is_last = n_done == manifest.n_utterances
                if time.perf_counter() - reported > _PROGRESS_EVERY_S and not is_last:
                    reported = time.perf_counter()
                    yield self._progress(n_done, manifest, n_frames, started)
        finally:
            # Also after Ctrl-C: what was encoded so far is kept.
            self._cache.flush()
            self._words.close()
        yield self._progress(n_done, manifest, n_frames, started)
        if left_out.n:
            yield left_out.total(len(items))
        yield from self._silence_note(manifest)
        if self._cache.problem is not None:
            yield Note(f"Encoded clips are not kept for the next run: {self._cache.problem.cause}")
        if self._n_heard:
            yield Note(f"Whisper wrote {self._n_heard} transcripts beside their clips; correct them there.")
        if not items:
            first = left_out.first
            raise UsageError(
                f"Nothing is left to train on. The first fault: {first.name}: {first.cause}", first.remedy
            )
        return Corpus(tuple(items), left_out.n, self._codec.frame_rate)

    def _silence_note(self, manifest: Manifest) -> Iterator[Note]:
        if not self._mostly_silent:
            return
        sound, used_s, recorded_s = min(self._mostly_silent, key=lambda found: found[1] / found[2])
        turns = (turn for entry in manifest.entries for turn in entry.turns)
        name = next(turn.name for turn in turns if turn.sound == sound)
        n = len(self._mostly_silent)
        yield Note(
            f"Of {n:,} {'clip' if n == 1 else 'clips'} more than half was cut as silence (most of {name}: "
            f"{used_s:.1f} of {recorded_s:.1f} s are left). If speech is missing, cut out what is far louder "
            "than it, or do without --shorten-silence."
        )

    def _progress(self, n_done: int, manifest: Manifest, n_frames: int, started: float) -> Reading:
        return Reading(
            n_done=n_done,
            n_total=manifest.n_utterances,
            n_encoded=self._n_encoded,
            sound_s=n_frames / self._codec.frame_rate,
            seconds=time.perf_counter() - started,
        )

    # --- sounds ---------------------------------------------------------------------------------------

    def _encode(self, manifest: Manifest, started: float) -> Iterator[DataEvent]:
        """Fills the cache with what it lacks, and `_found`."""
        sounds = dict.fromkeys(turn.sound for entry in manifest.entries for turn in entry.turns)
        reported, n_frames = 0.0, 0
        with contextlib.closing(_in_order(self._fetch, sounds)) as in_order:
            for n_done, (sound, fetched) in enumerate(in_order, 1):
                try:
                    found = fetched.result()
                    codes = self._cache.get(found.digest)
                    if codes is None:
                        codes = self._encoded(sound, found)
                    self._cache.remember(found.stamp, found.digest)
                    self._check_length(sound, codes.shape[1])
                    # Not the codes: they are to be views of the shards. Twenty thousand small tensors
                    # between the sounds' buffers would keep the allocator from using those again.
                    self._found[sound] = found.digest
                    n_frames += codes.shape[1]
                except ClipError as error:
                    self._found[sound] = error
                # All are done only when their words are there as well.
                is_last = n_done >= manifest.n_utterances
                if time.perf_counter() - reported > _PROGRESS_EVERY_S and not is_last:
                    reported = time.perf_counter()
                    yield self._progress(n_done, manifest, n_frames, started)

    def _fetch(self, sound: LazySound) -> _Fetched:
        """Runs in a thread."""
        stamp = sound.stamp()
        digest = self._cache.digest_of(stamp) or sound.digest()
        if digest in self._cache:
            return _Fetched(digest, stamp, None)
        return _Fetched(digest, stamp, *self._read(sound))

    def _read(self, sound: LazySound) -> tuple[torch.Tensor, float]:
        """Prepared samples, and the length before that in seconds."""
        # What is long before its silences are shortened may be short enough afterwards.
        longest = MAX_FILE_SECONDS if self._options.shorten_silence else self._options.max_seconds
        with torch.inference_mode():
            samples, rate = sound.read(longest)
            return prepare_clip(samples, rate, self._prepare), samples.shape[1] / rate

    def _encoded(self, sound: LazySound, found: _Fetched) -> torch.Tensor:
        # Without samples the shard has turned out to be damaged.
        samples, recorded_s = found.samples, found.recorded_s
        if samples is None:
            samples, recorded_s = self._read(sound)
        try:
            codes = self._codec.encode(samples)
        except RuntimeError as error:
            if out_of_memory(error):
                raise OutOfMemoryError(
                    f"The codec has no memory for a clip of {len(samples) / SAMPLE_RATE:.0f} s.",
                    "Close other programs, lower --max-seconds, or use --device cpu.",
                ) from error
            raise ClipError(f"The codec cannot encode the clip: {error}.", "Cut it shorter.") from error
        self._n_encoded += 1
        seconds = len(samples) / SAMPLE_RATE
        if recorded_s - seconds > max(_MUCH_S, seconds):
            self._mostly_silent.append((sound, seconds, recorded_s))
        return self._cache.put(found.digest, codes)

    def _check_length(self, sound: LazySound, n_frames: int) -> None:
        seconds = n_frames / self._codec.frame_rate
        wanted = sound.end_s - sound.start_s if isinstance(sound, FileSound) and sound.end_s else 0.0
        if wanted > seconds + _MISSING_S and not self._options.shorten_silence:
            raise ClipError(
                f"The file ends {wanted - seconds:.1f} s before the part of it that is named does.",
                "Check start and end, or offset and duration.",
            )
        if seconds > self._options.max_seconds + 1 / self._codec.frame_rate:
            raise ClipError(
                f"The clip is {seconds:.1f} s long, and the longest allowed is "
                f"{self._options.max_seconds:g} s.",
                "Cut it, and its transcript with it, or raise --max-seconds.",
            )
        if seconds < self._options.min_seconds:
            raise ClipError(
                f"The clip is {seconds:.2f} s long, and the shortest allowed is "
                f"{self._options.min_seconds:g} s.",
                "Leave it out, or lower --min-seconds.",
            )

    # --- items ----------------------------------------------------------------------------------------

    def _item(self, entry: ManifestEntry) -> Item | LeftOut:
        turns, n_positions = [], 0
        for utterance in entry.turns:
            try:
                turn = self._turn(utterance)
            except ClipError as error:
                rest = " The whole conversation is left out." if len(entry.turns) > 1 else ""
                return LeftOut(utterance.name, error.cause + rest, error.remedy)
            turns.append(turn)
            n_positions += self.n_positions(turn)
        if n_positions > self._max_positions:
            return LeftOut(
                entry.name,
                f"It takes {n_positions} positions, and the model has {self._max_positions}.",
                "Split it into shorter conversations or clips.",
            )
        return Item(entry.name, tuple(turns))

    def n_positions(self, turn: EncodedTurn) -> int:
        """Of its words, its frames and the end frame."""
        return len(self._tokenizer.encode(spoken_text(turn.speaker, turn.text))) + turn.n_frames + 1

    def _turn(self, utterance: Utterance) -> EncodedTurn:
        digest = self._found[utterance.sound]
        if isinstance(digest, ClipError):
            raise digest
        codes = self._cache.get(digest)
        assert codes is not None, "what has been encoded is in the cache, if only in its memory"
        text = utterance.text
        if text is None:
            text = self._find_words(utterance, digest)
        return EncodedTurn(self._numbers[utterance.speaker], text, codes, utterance.in_loss)

    def _find_words(self, utterance: Utterance, digest: str) -> str:
        sound = utterance.sound
        if utterance.txt is None or not isinstance(sound, FileSound):
            raise ClipError("It has no text.", "Write its words beside it.")
        words = self._words.known_words(digest, utterance.txt)
        if words is None:
            words = self._words.heard_words(self._words.open(sound.path), digest, utterance.txt)
            self._n_heard += 1
        return words.text


def prepare_options(options: DataOptions) -> PrepareOptions:
    """How sounds are prepared for training."""
    return PrepareOptions(shorten_silence=options.shorten_silence)


def word_finder(options: DataOptions, transcriber: Transcriber | None, cache: ClipCache) -> ClipLoader:
    """Reads `.txt` files, and lets Whisper write missing ones."""
    return ClipLoader(prepare_options(options), None, transcriber, cache)


def _in_order(
    fetch: Callable[[LazySound], _Fetched], sounds: Iterable[LazySound]
) -> Generator[tuple[LazySound, Future[_Fetched]], None, None]:
    """Runs `fetch` in threads, a little ahead; the results come in the sounds' order."""
    left = iter(sounds)
    running: deque[tuple[LazySound, Future[_Fetched]]] = deque()
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1), thread_name_prefix="read")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        running.extend((sound, pool.submit(fetch, sound)) for sound in islice(left, _AHEAD))
        while running:
            yield running.popleft()
            running.extend((sound, pool.submit(fetch, sound)) for sound in islice(left, 1))
