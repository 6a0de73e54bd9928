"""Every setting once: name, type, default, environment variable, help, and where its value came from.

The command line, `--help`, `$SET$`, `$STATUS$`, `doctor` and `.env.example` all read the registry that the
fields of `Settings` make up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from csm_repl.settings import values

__all__ = ["LAST_SPEAKER", "Origin", "SettingSpec", "Settings", "spec", "specs"]

ENV_PREFIX = "CSM_REPL_"
SECRETS = {"hf_token"}
"""Settings whose values are never shown."""
LAST_SPEAKER = 999
"""Three digits, as in the names of clips; CSM was trained with small ones."""
Origin = str
"""Where a value came from: 'default', '--flag', '$CSM_REPL_X', '.env' or '$SET$'."""


@dataclass(frozen=True)
class SettingSpec:
    """What is known about one setting besides its value."""

    name: str
    """Attribute name; the flag and `$SET$` name write it with dashes."""
    default: Any
    parse: Callable[[str], Any]
    help: str
    env: str | None
    live: bool
    """Whether `$SET$` may change it while the model is loaded."""
    flags: tuple[str, ...]
    """Command line spellings; empty for settings without a flag."""
    metavar: str
    group: str

    @property
    def dashed(self) -> str:
        return self.name.replace("_", "-")

    @property
    def words(self) -> tuple[str, ...]:
        """The values that there are, where they can be listed."""
        return self.parse.words if isinstance(self.parse, values.Choice) else ()

    @property
    def is_switch(self) -> bool:
        return self.parse is values.boolean

    @property
    def has_both_ways(self) -> bool:
        """Whether it is a switch with a `--no-` form."""
        return any(flag.startswith("--no-") for flag in self.flags)


def _setting(
    default: Any,
    parse: Callable[[str], Any],
    help: str,
    *,
    live: bool = False,
    flags: tuple[str, ...] | None = None,
    metavar: str = "",
    group: str = "general",
    env: str | None = "",
) -> Any:
    """`env=None`: no environment variable; `env=""`: the prefixed upper-case name."""
    metadata = {
        "parse": parse,
        "help": help,
        "live": live,
        "flags": flags,
        "metavar": metavar,
        "group": group,
        "env": env,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """One value per setting; immutable, `origins` says where each came from."""

    model: str = _setting(
        "sesame/csm-1b",
        values.text,
        "model on the Hugging Face hub, a folder, or demo for the small built-in voice",
        metavar="ID|DIR",
        group="model",
    )
    revision: str | None = _setting(
        None, values.optional_text, "branch, tag or commit of the hub model", metavar="REV", group="model"
    )
    adapter: Path | None = _setting(
        None, values.optional_path, "folder of an adapter, of csm-repl or PEFT", metavar="DIR", group="model"
    )
    offline: bool = _setting(
        False, values.boolean, "never touch the network; use what is cached", group="model"
    )
    device: str = _setting("auto", values.device, values.DEVICE_HELP, metavar="DEVICE", group="model")
    dtype: str = _setting(
        "auto",
        values.choice("auto", "bfloat16", "float16", "float32"),
        "auto, bfloat16, float16 or float32",
        metavar="DTYPE",
        group="model",
    )
    quantize: str = _setting(
        "none",
        values.choice("none", "int8", "fp8", "int4", "auto"),
        "quantised weights: none, int8, int4, fp8 on a newer GPU, or auto (int8 on a CPU, else none)",
        metavar="MODE",
        group="model",
    )
    compile: bool = _setting(
        False,
        values.boolean,
        "compile the model with torch.compile, on CUDA only; the first start takes longer",
        group="model",
    )
    native: bool = _setting(
        True,
        values.boolean,
        "use csm-repl's own kernels on a CPU; a C compiler builds them once",
        group="model",
    )
    weight_cache: bool = _setting(
        True, values.boolean, "keep converted weights on disk so that the next start is faster", group="model"
    )
    references: Path = _setting(
        Path("references"), values.path, "folder with the reference clips", metavar="DIR", group="voices"
    )
    whisper_model: str = _setting(
        "auto",
        values.text,
        "Whisper for missing transcripts: a size, a file, auto (turbo on a GPU, base on a CPU) or off",
        metavar="NAME",
        group="voices",
    )
    shorten_silence: bool = _setting(
        True, values.boolean, "shorten long silences in reference clips", flags=(), group="voices"
    )
    silence_threshold_db: float = _setting(
        # Speech sits 15-30 dB under full scale after normalising; room noise of usual clips below -45.
        -45.0,
        values.number(-90.0, -10.0, " dBFS"),
        "what counts as silence in a clip, dBFS after level normalisation",
        flags=(),
        group="voices",
    )
    silence_min_ms: int = _setting(
        # Pauses between sentences last 300-600 ms and carry rhythm; beyond 700 ms they only cost context.
        700,
        values.integer(100, 10_000),
        "silences longer than this are shortened, milliseconds",
        flags=(),
        group="voices",
    )
    silence_keep_ms: int = _setting(
        300, values.integer(0, 5_000), "length of a shortened silence, milliseconds", flags=(), group="voices"
    )
    speaker: int = _setting(
        0, values.integer(0, LAST_SPEAKER), "primary speaker", live=True, metavar="N", group="speech"
    )
    offsets: str = _setting(
        "on",
        values.choice("on", "off"),
        "whether a number at the end of a turn says who speaks it; off speaks every number",
        live=True,
        metavar="on|off",
        group="speech",
    )
    format: str = _setting(
        "auto",
        values.choice("auto", "plain", "names", "tags", "jsonl"),
        "notation of scripts: plain (as in the console), names (Name: text), tags ([S1] text), jsonl, auto",
        metavar="HOW",
        group="speech",
    )
    normalize: str = _setting(
        "safe",
        values.choice("safe", "off"),
        "write numbers, dates, abbreviations and signs out in words before they are spoken: safe or off",
        live=True,
        metavar="HOW",
        group="speech",
    )
    temperature: float = _setting(
        0.9,
        values.number(0.0, 5.0),
        "sampling temperature; 0 is greedy",
        live=True,
        metavar="T",
        group="speech",
    )
    top_k: int = _setting(
        50,
        values.integer(1, 100_000),
        "sample from the K most likely codes",
        live=True,
        metavar="K",
        group="speech",
    )
    seed: int | None = _setting(
        None,
        values.seed,
        "seed of the first take; later takes count up from it",
        live=True,
        metavar="N",
        group="speech",
    )
    max_seconds: float | None = _setting(
        None,
        values.max_seconds,
        "longest take in seconds; auto: judged from the text, off: no limit but the context",
        live=True,
        metavar="S",
        group="speech",
    )
    context: int | None = _setting(
        None,
        values.context,
        "positions of the context, or auto: as many as the model was trained with (CSM: 2048); it has not "
        "learnt to use more",
        metavar="N",
        group="model",
    )
    independent: bool = _setting(
        False,
        values.boolean,
        "make every line a conversation of its own: it hears the voices but no earlier line",
        group="speech",
    )
    batch: int = _setting(
        1,
        values.integer(1, 1024),
        "in pipes and scripts: speak N lines side by side; needs --independent",
        metavar="N",
        group="speech",
    )
    trim_tail: bool = _setting(
        True, values.boolean, "trim the silence at the end of a take", live=True, flags=(), group="speech"
    )
    output: Path = _setting(
        Path("outputs"), values.path, "where the runs' folders are made", metavar="DIR", group="output"
    )
    out_file: str | None = _setting(
        None,
        values.optional_text,
        "also write the whole run to FILE (.wav .flac .mp3 .ogg .opus; - is WAV on stdout)",
        flags=("-o", "--out-file"),
        metavar="FILE",
        group="output",
        env=None,
    )
    raw: bool = _setting(
        False, values.boolean, "with -o: headerless 24 kHz mono s16le", group="output", env=None
    )
    force: bool = _setting(False, values.boolean, "let -o replace an existing file", group="output", env=None)
    tracks: bool = _setting(
        False, values.boolean, "also write one time-aligned file per speaker", group="output"
    )
    keep_codes: bool = _setting(
        False, values.boolean, "also write each take's codes as .npy, [codebooks, frames]", group="output"
    )
    play: bool | None = _setting(
        None,
        values.boolean,
        "play while generating; by default only in a terminal",
        live=True,
        group="output",
    )
    json: bool = _setting(
        False, values.boolean, "write results as one JSON object per line", group="interface"
    )
    dry_run: bool = _setting(
        False,
        values.boolean,
        "show how scripts are understood, what fails and about how long they are, without a model",
        group="interface",
        env=None,
    )
    quiet: bool = _setting(
        False, values.boolean, "show only results and errors", flags=("-q", "--quiet"), group="interface"
    )
    verbose: bool = _setting(
        False, values.boolean, "show more detail", flags=("-v", "--verbose"), group="interface"
    )
    debug: bool = _setting(False, values.boolean, "show tracebacks", group="interface")
    color: str = _setting(
        "auto",
        values.choice("auto", "always", "never"),
        "auto, always or never",
        metavar="WHEN",
        group="interface",
    )
    editing_mode: str = _setting(
        "emacs",
        values.choice("emacs", "vi"),
        "key bindings of the prompt: emacs or vi",
        live=True,
        metavar="MODE",
        group="interface",
    )
    bell: bool = _setting(
        False,
        values.boolean,
        "in the console: ring the bell when a line is ready that took more than 10 seconds",
        group="interface",
    )
    hf_token: str | None = _setting(
        None,
        values.optional_text,
        "access token of the Hugging Face hub",
        flags=(),
        env="HF_TOKEN",
        group="model",
    )
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)

    def origin(self, name: str) -> Origin:
        return self.origins.get(name, "default")

    def with_value(self, name: str, value: Any, origin: Origin) -> Settings:
        """A copy with one more value, already parsed."""
        return replace(self, **{name: value}, origins={**self.origins, name: origin})


def _spec(item: Field[Any]) -> SettingSpec:
    meta = item.metadata
    env = meta["env"]
    if env == "":
        env = ENV_PREFIX + item.name.upper()
    flags = meta["flags"]
    if flags is None:
        name = item.name.replace("_", "-")
        # A switch that is on, or may be on by itself, can be switched off.
        both_ways = meta["parse"] is values.boolean and item.default is not False
        flags = (f"--{name}", f"--no-{name}") if both_ways else (f"--{name}",)
    assert item.default is not MISSING
    return SettingSpec(
        name=item.name,
        default=item.default,
        parse=meta["parse"],
        help=meta["help"],
        env=env,
        live=meta["live"],
        flags=flags,
        metavar=meta["metavar"],
        group=meta["group"],
    )


_SPECS: dict[str, SettingSpec] = {item.name: _spec(item) for item in fields(Settings) if item.metadata}


def specs() -> tuple[SettingSpec, ...]:
    """All settings, in the order in which help shows them."""
    return tuple(_SPECS.values())


def spec(name: str) -> SettingSpec:
    """The setting called `name`, with dashes or underscores. KeyError if there is none."""
    return _SPECS[name.strip().lower().replace("-", "_")]
