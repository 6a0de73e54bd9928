"""What a run starts from, beside its weights: config, tokenizer, codec, device, and items.

Prints nothing: what happens goes to the display.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from csm_repl.codec import Codec
from csm_repl.files.checkpoint import Checkpoint, find_checkpoint
from csm_repl.files.config import ModelConfig, parse_config
from csm_repl.files.hub import ModelFiles, find_companions, find_model
from csm_repl.files.json_files import read_config
from csm_repl.loaded import open_codec, open_tokenizer
from csm_repl.model.device import choose_placement
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.paths import default_cache_dir
from csm_repl.train.data.arrange import group_turns, split_held_out
from csm_repl.train.data.code_cache import CodeCache
from csm_repl.train.data.corpus import Corpus, CorpusReader, prepare_options, word_finder
from csm_repl.train.data.items import Item
from csm_repl.train.data.manifest import Manifest
from csm_repl.train.events import Note, SpeakerTable
from csm_repl.train.flags import TrainJob
from csm_repl.train.report.display import Display
from csm_repl.train.report.log import duration
from csm_repl.voices import WhisperTranscriber
from csm_repl.voices.cache import ClipCache

__all__ = ["Base", "open_base", "read_items", "summarise"]

_Event = TypeVar("_Event")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Base:
    """What a run starts from, beside its weights."""

    files: ModelFiles
    config: ModelConfig
    checkpoint: Checkpoint | None
    """None: a new model."""
    tokenizer: Tokenizer
    codec: Codec
    device: torch.device


def open_base(job: TrainJob, display: Display) -> Base:
    """Finds and loads all of it.

    Raises:
        DeviceError, ModelError: the device is missing, or the model is not there or not usable.
    """
    settings = job.settings
    # Trained weights are float32 whatever the autocast; the dtype that is chosen here is not used.
    placement = choose_placement(settings.device, "float32")
    if placement.reason:
        display.say(placement.reason)
    access: dict[str, Any] = {"offline": settings.offline, "token": settings.hf_token, "say": display.say}
    if job.scratch is not None:
        folder = job.scratch.parent if job.scratch.is_file() else job.scratch
        config = parse_config(read_config(folder / "config.json"), source=str(folder / "config.json"))
        files, checkpoint = find_companions(folder, **access), None
    else:
        files = find_model(settings.model, revision=settings.revision, **access)
        checkpoint = find_checkpoint(files.folder)
        config = checkpoint.config
    return Base(
        files=files,
        config=config,
        checkpoint=checkpoint,
        tokenizer=open_tokenizer(files, config),
        codec=open_codec(files, config, placement.device),
        device=placement.device,
    )


def read_items(
    job: TrainJob, base: Base, manifest: Manifest, display: Display, told: list[object]
) -> tuple[list[Item], list[Item]]:
    """Items to train on and items held out. The events go to the display and into `told`.

    Raises:
        UsageError: nothing can be used.
    """
    settings, data = job.settings, job.data
    root = job.cache or default_cache_dir() / "train"
    preparation = prepare_options(data).fingerprint
    whisper = WhisperTranscriber(settings.whisper_model, str(base.device), offline=settings.offline)
    reader = CorpusReader(
        codec=base.codec,
        tokenizer=base.tokenizer,
        max_positions=base.config.max_positions,
        options=data,
        cache=CodeCache(
            root, preparation=preparation, codec_id=base.codec.id, n_codebooks=base.codec.n_codebooks
        ),
        words=word_finder(data, whisper, ClipCache(root, preparation=preparation, codec_id=base.codec.id)),
    )
    table = speaker_table(manifest)
    display.handle(table)
    told.append(table)
    corpus: Corpus = _drain(reader.read(manifest), display, told)
    train, held_out = split_held_out(corpus.items, job.options.held_out, job.options.seed)
    if data.turns == 1:
        return train, held_out
    group = functools.partial(
        group_turns,
        n_turns=data.turns,
        n_voices=data.voices,
        seed=job.options.seed,
        n_positions=reader.n_positions,
        max_positions=base.config.max_positions,
        renumber=data.renumber,
    )
    return group(train), group(held_out)


def speaker_table(manifest: Manifest) -> SpeakerTable:
    """Whose voice has which number, with what is left out later."""
    counts = Counter(turn.speaker for entry in manifest.entries for turn in entry.turns)
    return SpeakerTable(tuple((name, number, counts[name]) for name, number in manifest.numbers.items()))


def _drain(events: Generator[_Event, None, _Result], display: Display, told: list[object]) -> _Result:
    """The generator's result."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            result: _Result = end.value
            return result
        display.handle(event)
        told.append(event)


def summarise(train: Sequence[Item], held_out: Sequence[Item], base: Base) -> Iterator[Note]:
    """What there is to learn from."""
    for name, items in (("Training", train), ("Held out", held_out)):
        turns = [turn for item in items for turn in item.turns]
        seconds = sum(turn.n_frames for turn in turns) / base.codec.frame_rate
        speakers = Counter(turn.speaker for turn in turns)
        shown = ", ".join(f"{speaker} ({n})" for speaker, n in sorted(speakers.items())[:12])
        more = f" and {len(speakers) - 12} more" if len(speakers) > 12 else ""
        text = f"{name}: {len(items)} items, {len(turns)} utterances, {duration(seconds)} of sound"
        yield Note(f"{text}; speakers {shown}{more}." if items else f"{name}: nothing.")
