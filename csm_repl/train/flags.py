"""The command lines of `csm-repl train` and `csm-repl merge`, made from the options' registry.

Imports no torch, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Iterable, Sequence
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from csm_repl.errors import UsageError
from csm_repl.settings import ArgumentParser, Settings, load_settings, spec
from csm_repl.train.options import DataOptions, TrainOptions
from csm_repl.train.values import value_reader

__all__ = [
    "MergeJob",
    "TrainJob",
    "flag_of",
    "merge_parser",
    "option_fields",
    "parse_merge",
    "parse_train",
    "shown_value",
    "train_parser",
]

_TRAIN_SETTINGS = ("model", "revision", "offline", "device", "whisper_model")
_MERGE_SETTINGS = ("model", "revision", "offline")
_INTERFACE_SETTINGS = ("json", "quiet", "verbose", "debug", "color")
_FLAGS = {"out": ("-o", "--out"), "sample_texts": ("--sample-text",)}
"""Fields whose flag is not their name."""

_DESCRIPTION = """\
Trains CSM on your clips: adapters (--lora), all weights (--full), or a new model (--from-scratch).

DATA is a folder of clips (NAME.wav with its words in NAME.txt), a .jsonl file, or a data set (hf:NAME, or
a folder that save_to_disk made). Several are joined. docs/training.md describes them.
"""
_EPILOG = """\
To continue an interrupted run, give the same command again. Exit codes: 0 all good, 1 the run could
not go on, 2 usage, 3 model not available, 4 device or out of memory, 130 interrupted.
"""
_MERGE_DESCRIPTION = """\
Merges an adapter, made by 'csm-repl train --lora' or by PEFT, into its base model, and writes a model folder
that 'csm-repl --model DIR' loads.
"""

_Options = TypeVar("_Options", TrainOptions, DataOptions)


@dataclass(frozen=True)
class TrainJob:
    """What a `csm-repl train` is to do."""

    sources: tuple[str, ...]
    settings: Settings
    options: TrainOptions
    data: DataOptions
    scratch: Path | None
    """Folder with the config of a new model."""
    cache: Path | None
    """Where codes are kept; None: in the user's cache folder."""
    resume: bool
    dry_run: bool


@dataclass(frozen=True)
class MergeJob:
    """What a `csm-repl merge` is to do."""

    adapter: Path
    settings: Settings
    out: Path
    layout: Literal["original", "transformers"]
    dtype: str


def train_parser() -> ArgumentParser:
    """Of `csm-repl train`."""
    parser = _parser("train", "DATA [DATA ...] [options]", _DESCRIPTION, _EPILOG)
    parser.add_argument("data", nargs="+", metavar="DATA", help=argparse.SUPPRESS)
    mode = parser.add_argument_group("what is trained")
    modes = mode.add_mutually_exclusive_group()
    modes.add_argument("--lora", action="store_true", help="small adapters beside the weights [default]")
    modes.add_argument("--full", action="store_true", help="all weights")
    modes.add_argument(
        "--from-scratch",
        metavar="CONFIG",
        help="a new model: a folder with config.json, tokenizer.json and its codec",
    )
    groups: dict[str, Any] = {}
    for item in option_fields(TrainOptions, DataOptions):
        _add_flag(parser, groups, item)
    data = groups["data"]
    data.add_argument("--cache", metavar="DIR", help="where encoded clips are kept [the user's cache folder]")
    data.add_argument(
        "--dry-run", action="store_true", help="read the data, say what would be trained on, and stop"
    )
    groups["results"].add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with the run in the results' folder [--resume]",
    )
    _add_settings(parser, "model", _TRAIN_SETTINGS)
    _add_settings(parser, "interface", _INTERFACE_SETTINGS)
    return parser


def parse_train(words: Sequence[str]) -> TrainJob:
    """UsageError for anything that cannot be meant; `--help` prints and leaves."""
    values = vars(train_parser().parse(words))
    settings = _settings(values)
    if values["from_scratch"] and values["setting_model"]:
        raise UsageError(
            "--from-scratch makes a new model, and --model names one to start from.", "Give one of them."
        )
    chosen = "full" if values["full"] else "scratch" if values["from_scratch"] else "lora"
    return TrainJob(
        sources=tuple(values["data"]),
        settings=settings,
        options=_options(TrainOptions, values, mode=chosen),
        data=_options(DataOptions, values),
        scratch=_folder(values["from_scratch"]),
        cache=_folder(values["cache"]),
        resume=values["resume"],
        dry_run=values["dry_run"],
    )


def merge_parser() -> ArgumentParser:
    """Of `csm-repl merge`."""
    parser = _parser("merge", "ADAPTER --model BASE -o DIR [options]", _MERGE_DESCRIPTION, None)
    parser.add_argument("adapter", metavar="ADAPTER", help=argparse.SUPPRESS)
    group = parser.add_argument_group("merge")
    group.add_argument("-o", "--out", metavar="DIR", required=True, help="folder for the merged model")
    group.add_argument(
        "--layout",
        choices=["original", "transformers"],
        default="original",
        help="names of the weights [original]",
    )
    group.add_argument(
        "--dtype",
        choices=["auto", "bfloat16", "float16", "float32"],
        default="auto",
        help="of the weights; auto: the base model's [auto]",
    )
    _add_settings(parser, "model", _MERGE_SETTINGS)
    _add_settings(parser, "interface", _INTERFACE_SETTINGS)
    return parser


def parse_merge(words: Sequence[str]) -> MergeJob:
    """UsageError for anything that cannot be meant; `--help` prints and leaves."""
    values = vars(merge_parser().parse(words))
    return MergeJob(
        adapter=Path(values["adapter"]).expanduser(),
        settings=_settings(values),
        out=Path(values["out"]).expanduser(),
        layout=values["layout"],
        dtype=values["dtype"],
    )


# --- the registry -------------------------------------------------------------------------------------


def option_fields(*kinds: type[TrainOptions] | type[DataOptions]) -> Iterable[Field[Any]]:
    """All options that have a flag of their own name, in the order of the help."""
    for kind in kinds:
        yield from (item for item in dataclasses.fields(kind) if item.metadata)


def flag_of(item: Field[Any]) -> str:
    """The long flag of an option."""
    return _FLAGS.get(item.name, (f"--{item.name.replace('_', '-')}",))[-1]


def shown_value(value: Any) -> str:
    """A value as it would be typed; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(shown_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _add_flag(parser: argparse.ArgumentParser, groups: dict[str, Any], item: Field[Any]) -> None:
    meta = item.metadata
    if meta["group"] not in groups:
        groups[meta["group"]] = parser.add_argument_group(meta["group"])
    flags = _FLAGS.get(item.name, (flag_of(item),))
    help_text = meta["help"].replace("%", "%%")
    arguments: dict[str, Any] = {"dest": item.name, "default": None}
    if isinstance(item.default, bool):
        arguments["action"] = "store_true"
    else:
        arguments["metavar"] = meta["metavar"]
        arguments["action"] = "append" if item.name == "sample_texts" else "store"
        help_text = _with_default(meta["help"], item.default)
    groups[meta["group"]].add_argument(*flags, help=help_text, **arguments)


def _add_settings(parser: argparse.ArgumentParser, title: str, names: Iterable[str]) -> None:
    group = parser.add_argument_group(title)
    for name in names:
        setting = spec(name)
        if setting.is_switch:
            group.add_argument(
                *setting.flags, dest=f"setting_{name}", action="store_true", default=None, help=setting.help
            )
        else:
            group.add_argument(
                *setting.flags,
                dest=f"setting_{name}",
                metavar=setting.metavar,
                help=_with_default(setting.help, setting.default),
            )


def _with_default(help_text: str, default: Any) -> str:
    shown = shown_value(default)
    return (f"{help_text} [{shown}]" if shown else help_text).replace("%", "%%")


def _settings(values: dict[str, Any]) -> Settings:
    prefix = "setting_"
    return load_settings(
        {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    )


def _options(kind: type[_Options], values: dict[str, Any], **more: Any) -> _Options:
    hints = typing.get_type_hints(kind)
    given = dict(more)
    for item in option_fields(kind):
        value = values[item.name]
        if isinstance(value, bool):
            given[item.name] = value
        elif isinstance(value, list):
            given[item.name] = tuple(value)
        elif value is not None:
            given[item.name] = _parsed(item, hints[item.name], value)
    return kind(**given)


def _parsed(item: Field[Any], hint: Any, text: str) -> Any:
    try:
        return value_reader(hint)(text)
    except ValueError as error:
        raise UsageError(
            f"{flag_of(item)} {error}, not {text!r}.", f"It means: {item.metadata['help']}."
        ) from error


def _parser(command: str, usage: str, description: str, epilog: str | None) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"csm-repl {command}",
        usage=f"csm-repl {command} {usage}",
        description=description,
        epilog=epilog,
    )
    parser.add_argument("-h", "--help", action="help", help="show this help")
    return parser


def _folder(text: str | None) -> Path | None:
    return None if text is None else Path(text).expanduser()
