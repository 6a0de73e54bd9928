"""Every setting once: name, type, default, environment variable, help, and where its value came from.

Flag > environment > `.env` > default. The command line, `--help`, `$SET$`, `$STATUS$`, `doctor` and
`.env.example` all read the registry that the fields of `Settings` make up.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from csm_repl.errors import UsageError

__all__ = [
    "DEVICE_HELP",
    "LAST_SPEAKER",
    "Origin",
    "SettingSpec",
    "Settings",
    "load_settings",
    "parse_value",
    "spec",
    "specs",
]

ENV_PREFIX = "CSM_REPL_"
LAST_SPEAKER = 999
"""Three digits, as in the names of clips; CSM was trained with small ones."""
DEVICE_HELP = "auto, cuda, cuda:N, mps or cpu"
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
    def is_switch(self) -> bool:
        return self.parse is _boolean

    @property
    def has_both_ways(self) -> bool:
        """Whether it is a switch with a `--no-` form."""
        return any(flag.startswith("--no-") for flag in self.flags)


# --- parsers: text -> value, ValueError with half a sentence otherwise --------------------------------


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def _optional_text(value: str) -> str | None:
    return value.strip() or None


def _path(value: str) -> Path:
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise ValueError("names a home folder that does not exist") from None


def _optional_path(value: str) -> Path | None:
    return _path(value) if value.strip() else None


def _boolean(value: str) -> bool:
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError("must be on or off")


def _number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
        if not (math.isfinite(number) and low <= number <= high):
            raise ValueError(f"must be between {low:g} and {high:g}{unit}")
        return number

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            number = int(value.strip(), 10)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


def _seed(value: str) -> int | None:
    if value.strip().lower() in {"", "random", "none"}:
        return None
    return _integer(0, 2**63 - 1)(value)


def _max_seconds(value: str) -> float | None:
    """`auto` is None (a ceiling from the text), `off` is infinity (only the context ends a take)."""
    word = value.strip().lower()
    if word == "auto":
        return None
    if word in {"off", "inf"}:
        return math.inf
    return _number(0.08, 3600.0, " seconds, or auto, or off")(value)


def _choice(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return word

    return parse


def _device(value: str) -> str:
    word = value.strip().lower()
    kind, colon, index = word.partition(":")
    known = kind in {"auto", "cpu", "mps", "cuda"}
    if not known or (colon and not (kind == "cuda" and index.isascii() and index.isdigit())):
        raise ValueError(f"must be {DEVICE_HELP}")
    return word


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
        _text,
        "model on the Hugging Face hub, a folder, or demo for the small built-in voice",
        metavar="ID|DIR",
        group="model",
    )
    revision: str | None = _setting(
        None, _optional_text, "branch, tag or commit of the hub model", metavar="REV", group="model"
    )
    adapter: Path | None = _setting(
        None, _optional_path, "folder of an adapter, of csm-repl or PEFT", metavar="DIR", group="model"
    )
    offline: bool = _setting(False, _boolean, "never touch the network; use what is cached", group="model")
    device: str = _setting("auto", _device, DEVICE_HELP, metavar="DEVICE", group="model")
    dtype: str = _setting(
        "auto",
        _choice("auto", "bfloat16", "float16", "float32"),
        "auto, bfloat16, float16 or float32",
        metavar="DTYPE",
        group="model",
    )
    quantize: str = _setting(
        "none",
        _choice("none", "int8", "fp8", "int4", "auto"),
        "quantised weights: none, int8, int4, fp8 on a newer GPU, or auto (int8 on a CPU, else none)",
        metavar="MODE",
        group="model",
    )
    compile: bool = _setting(
        False,
        _boolean,
        "compile the model with torch.compile, on CUDA only; the first start takes longer",
        group="model",
    )
    native: bool = _setting(
        True,
        _boolean,
        "use csm-repl's own kernels on a CPU; a C compiler builds them once",
        group="model",
    )
    weight_cache: bool = _setting(
        True, _boolean, "keep converted weights on disk so that the next start is faster", group="model"
    )
    references: Path = _setting(
        Path("references"), _path, "folder with the reference clips", metavar="DIR", group="voices"
    )
    whisper_model: str = _setting(
        "auto",
        _text,
        "Whisper for missing transcripts: a size, a file, auto (turbo on a GPU, base on a CPU) or off",
        metavar="NAME",
        group="voices",
    )
    shorten_silence: bool = _setting(
        True, _boolean, "shorten long silences in reference clips", flags=(), group="voices"
    )
    silence_threshold_db: float = _setting(
        # Speech sits 15-30 dB under full scale after normalising; room noise of usual clips below -45.
        -45.0,
        _number(-90.0, -10.0, " dBFS"),
        "what counts as silence in a clip, dBFS after level normalisation",
        flags=(),
        group="voices",
    )
    silence_min_ms: int = _setting(
        # Pauses between sentences last 300-600 ms and carry rhythm; beyond 700 ms they only cost context.
        700,
        _integer(100, 10_000),
        "silences longer than this are shortened, milliseconds",
        flags=(),
        group="voices",
    )
    silence_keep_ms: int = _setting(
        300, _integer(0, 5_000), "length of a shortened silence, milliseconds", flags=(), group="voices"
    )
    speaker: int = _setting(
        0, _integer(0, LAST_SPEAKER), "primary speaker", live=True, metavar="N", group="speech"
    )
    offsets: str = _setting(
        "on",
        _choice("on", "off"),
        "whether a number at the end of a turn says who speaks it; off speaks every number",
        live=True,
        metavar="on|off",
        group="speech",
    )
    temperature: float = _setting(
        0.9, _number(0.0, 5.0), "sampling temperature; 0 is greedy", live=True, metavar="T", group="speech"
    )
    top_k: int = _setting(
        50,
        _integer(1, 100_000),
        "sample from the K most likely codes",
        live=True,
        metavar="K",
        group="speech",
    )
    seed: int | None = _setting(
        None,
        _seed,
        "seed of the first take; later takes count up from it",
        live=True,
        metavar="N",
        group="speech",
    )
    max_seconds: float | None = _setting(
        None,
        _max_seconds,
        "longest take in seconds; auto: judged from the text, off: no limit but the context",
        live=True,
        metavar="S",
        group="speech",
    )
    independent: bool = _setting(
        False,
        _boolean,
        "make every line a conversation of its own: it hears the voices but no earlier line",
        group="speech",
    )
    batch: int = _setting(
        1,
        _integer(1, 1024),
        "in pipes and scripts: speak N lines side by side; needs --independent",
        metavar="N",
        group="speech",
    )
    trim_tail: bool = _setting(
        True, _boolean, "trim the silence at the end of a take", live=True, flags=(), group="speech"
    )
    output: Path = _setting(
        Path("outputs"), _path, "where the runs' folders are made", metavar="DIR", group="output"
    )
    out_file: str | None = _setting(
        None,
        _optional_text,
        "also write the whole run to FILE (.wav .flac .mp3; - is WAV on stdout)",
        flags=("-o", "--out-file"),
        metavar="FILE",
        group="output",
        env=None,
    )
    raw: bool = _setting(False, _boolean, "with -o: headerless 24 kHz mono s16le", group="output", env=None)
    force: bool = _setting(False, _boolean, "let -o replace an existing file", group="output", env=None)
    tracks: bool = _setting(False, _boolean, "also write one time-aligned file per speaker", group="output")
    keep_codes: bool = _setting(
        False, _boolean, "also write each take's codes as .npy, [codebooks, frames]", group="output"
    )
    play: bool | None = _setting(
        None,
        _boolean,
        "play while generating; by default only in a terminal",
        live=True,
        group="output",
    )
    json: bool = _setting(False, _boolean, "write results as one JSON object per line", group="interface")
    quiet: bool = _setting(
        False, _boolean, "show only results and errors", flags=("-q", "--quiet"), group="interface"
    )
    verbose: bool = _setting(
        False, _boolean, "show more detail", flags=("-v", "--verbose"), group="interface"
    )
    debug: bool = _setting(False, _boolean, "show tracebacks", group="interface")
    color: str = _setting(
        "auto", _choice("auto", "always", "never"), "auto, always or never", metavar="WHEN", group="interface"
    )
    editing_mode: str = _setting(
        "emacs",
        _choice("emacs", "vi"),
        "key bindings of the prompt: emacs or vi",
        live=True,
        metavar="MODE",
        group="interface",
    )
    bell: bool = _setting(
        False,
        _boolean,
        "in the console: ring the bell when a line is ready that took more than 10 seconds",
        group="interface",
    )
    hf_token: str | None = _setting(
        None, _optional_text, "access token of the Hugging Face hub", flags=(), env="HF_TOKEN", group="model"
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
        both_ways = meta["parse"] is _boolean and item.default is not False
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


def parse_value(setting: SettingSpec, text: str, origin: Origin) -> Any:
    """`text` as a value of `setting`; UsageError names the setting and where the text came from."""
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "(hidden)" if setting.name == "hf_token" else repr(text)
        raise UsageError(
            f"{setting.dashed} {error}, not {shown} (from {origin}).",
            f"It means: {setting.help}.",
        ) from error


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
) -> Settings:
    """Settings from flags (already split by name), the environment, a `.env` file and the defaults.

    Args:
        flags: setting name -> text, or a ready bool for switches; absent or None means not given.
        environ: defaults to the process's environment.
        dotenv: file with NAME=value lines; a missing one is fine.

    Raises:
        UsageError: a value that does not parse, or a `.env` that cannot be read.
    """
    environ = os.environ if environ is None else environ
    from_file = _read_dotenv(dotenv)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for setting in specs():
        given = flags.get(setting.name)
        if given is not None:
            origin = setting.flags[-1] if setting.flags else "flag"
            values[setting.name] = (
                given if isinstance(given, bool) else parse_value(setting, str(given), origin)
            )
            origins[setting.name] = origin
            continue
        if setting.env is None:
            continue
        if setting.env in environ:
            text, origin = environ[setting.env], f"${setting.env}"
        elif setting.env in from_file:
            text, origin = from_file[setting.env], ".env"
        else:
            continue
        if not text.strip():
            continue  # `NAME=` in a .env means: not set
        values[setting.name] = parse_value(setting, text, origin)
        origins[setting.name] = origin
    settings = Settings(**values, origins=origins)
    if settings.raw and settings.out_file is None:
        raise UsageError("--raw works only with -o.", "Add -o FILE, or -o - for stdout.")
    if settings.batch > 1 and not settings.independent:
        raise UsageError(
            f"Lines cannot be spoken side by side (batch {settings.batch}, from {settings.origin('batch')}) "
            "while each hears the ones before it.",
            "Add --independent, or use --batch 1.",
        )
    if settings.quiet and settings.verbose:
        raise UsageError("-q and -v exclude each other.", "Give one of them.")
    return settings


def _read_dotenv(path: Path | None) -> Mapping[str, str]:
    if path is None or not path.is_file():
        return {}
    from dotenv import dotenv_values

    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}.", "Make it a readable UTF-8 file with NAME=value lines."
        ) from error
