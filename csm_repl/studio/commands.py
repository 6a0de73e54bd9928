"""The `$COMMANDS$`, once: dispatch, help, completion and the documentation read this registry.

A command takes the studio and its arguments and yields events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_repl.errors import LineError, UsageError
from csm_repl.events import Event, Notice, PlayFile, Quit, Table
from csm_repl.session.numbers import TakeNumber
from csm_repl.settings import LAST_SPEAKER, SettingSpec, max_seconds_text, parse_value, spec, specs
from csm_repl.text.grammar import Command, closest

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = [
    "COMMANDS",
    "CommandSpec",
    "command_names",
    "known_command",
    "run_command",
    "setting_text",
]

Run = Callable[["Studio", str], Iterator[Event]]


@dataclass(frozen=True)
class CommandSpec:
    name: str
    args: str
    """How the arguments are written; empty: there are none."""
    help: str
    run: Run
    complete: Callable[[Studio], Sequence[str]] | None = None
    """Words that may stand first among the arguments."""

    @property
    def usage(self) -> str:
        return f"${self.name} {self.args}$" if self.args else f"${self.name}$"


COMMANDS: dict[str, CommandSpec] = {}


def command_names() -> tuple[str, ...]:
    """For `grammar.parse` and `grammar.spans`, so that they know a mistyped command when they see one."""
    return tuple(COMMANDS)


def run_command(studio: Studio, command: Command) -> Iterator[Event]:
    """Runs a parsed command.

    Raises:
        LineError: no such command, or arguments that it cannot use.
    """
    known = known_command(command)
    try:
        yield from known.run(studio, command.args)
    except UsageError as error:
        # In a running session a bad value is a bad line, no reason to leave.
        raise LineError(error.cause, error.remedy) from error


def known_command(command: Command) -> CommandSpec:
    """The command that is meant.

    Raises:
        LineError: there is none, it is mistyped, or it takes no arguments.
    """
    known = COMMANDS.get(command.name.upper())
    if known is None or command.mistyped:
        nearest = closest(command.name, COMMANDS)
        hint = f"Did you mean {COMMANDS[nearest].usage}?" if nearest else "$HELP$ lists the commands."
        if known is not None:
            raise LineError(f"A dollar sign is missing in ${known.name}$; nothing was spoken.", hint)
        raise LineError(f"There is no command ${command.name}$; nothing was spoken.", hint)
    if command.args and not known.args:
        raise LineError(f"${known.name}$ takes no arguments, not {command.args[:40]!r}.", "Leave them out.")
    return known


def _command(
    args: str = "", *, complete: Callable[[Studio], Sequence[str]] | None = None
) -> Callable[[Run], Run]:
    def register(run: Run) -> Run:
        name = run.__name__.lstrip("_").upper()
        COMMANDS[name] = CommandSpec(name, args, (run.__doc__ or "").strip(), run, complete)
        return run

    return register


@_command()
def _clear(studio: Studio, args: str) -> Iterator[Event]:
    """forgets the conversation; keeps references and primary speaker"""
    n_turns = studio.clear()
    yield Notice(f"Forgot {_count(n_turns, 'turn')}. References and primary speaker stay.")


@_command()
def _swap(studio: Studio, args: str) -> Iterator[Event]:
    """primary speaker +1"""
    if studio.primary == LAST_SPEAKER:
        yield Notice(f"The primary speaker is already {LAST_SPEAKER}, the last one.")
        return
    studio.set("speaker", studio.primary + 1, origin="$SWAP$")
    yield _primary(studio)


@_command()
def _back(studio: Studio, args: str) -> Iterator[Event]:
    """primary speaker -1, never below 0"""
    if studio.primary == 0:
        yield Notice(f"The primary speaker is already 0: {studio.voice(0)}.")
        return
    studio.set("speaker", studio.primary - 1, origin="$BACK$")
    yield _primary(studio)


@_command()
def _history(studio: Studio, args: str) -> Iterator[Event]:
    """the conversation, references first"""
    yield from studio.refresh_voices()
    records: list[dict[str, Any]] = [
        {
            "number": None,
            "speaker": clip.speaker,
            "voice": studio.voice(clip.speaker),
            "seconds": round(clip.seconds, 2),
            "text": clip.text,
            "file": str(clip.path),
            "reference": True,
            "in_context": True,
        }
        for clip in studio.voices.clips
    ]
    records += [
        {
            "number": str(turn.number),
            "line": turn.line,
            "turn": turn.position + 1,
            "speaker": turn.speaker,
            "voice": turn.voice,
            "seconds": round(turn.seconds, 2),
            "text": turn.text,
            "file": str(turn.file) if turn.file else None,
            "reference": False,
            "in_context": turn.in_context,
        }
        for turn in studio.conversation.turns
    ]
    rows = tuple(
        (
            "ref" if record["reference"] else str(record["number"]),
            str(record["speaker"]),
            record["voice"],
            f"{record['seconds']:.1f}",
            record["text"] if record["in_context"] else f"{record['text']} (left the context)",
            Path(record["file"]).name if record["file"] else "",
        )
        for record in records
    )
    yield Table(
        "history",
        "History",
        ("#", "speaker", "voice", "seconds", "text", "file"),
        rows,
        tuple(records),
        empty="No references and no turns yet.",
    )


@_command()
def _exit(studio: Studio, args: str) -> Iterator[Event]:
    """leaves"""
    yield Quit()


@_command()
def _help(studio: Studio, args: str) -> Iterator[Event]:
    """this table"""
    records = tuple({"command": item.usage, "does": item.help} for item in COMMANDS.values())
    rows = tuple((record["command"], record["does"]) for record in records)
    yield Table("help", "Commands", ("command", "does"), rows, records)


@_command()
def _voices(studio: Studio, args: str) -> Iterator[Event]:
    """speakers with a reference; unusable clips with the remedy"""
    yield from studio.refresh_voices()
    yield voices_table(studio.voices)


def voices_table(voices: Any) -> Table:
    """The folder's clips, usable ones first.

    Args:
        voices: a `VoiceFolder`.
    """
    records = [
        {
            "speaker": clip.speaker,
            "voice": voices.name(clip.speaker),
            "clip": clip.path.name,
            "seconds": round(clip.seconds, 2),
            "transcript": clip.transcript,
            "text": clip.text,
            "usable": True,
        }
        for clip in voices.clips
    ]
    rows = [
        (
            str(record["speaker"]),
            str(record["voice"]),
            str(record["clip"]),
            f"{record['seconds']:.1f}",
            {"file": ".txt", "whisper": "Whisper"}.get(str(record["transcript"]), str(record["transcript"])),
            str(record["text"]),
        )
        for record in records
    ]
    for bad in voices.unusable:
        problem = f"{bad.cause} {bad.remedy}".strip()
        records.append({"speaker": bad.speaker, "clip": bad.path.name, "usable": False, "problem": problem})
        rows.append((str(bad.speaker), "", bad.path.name, "", "unusable", problem))
    for file in voices.ignored:
        problem = f"{file.cause} {file.remedy}"
        records.append({"clip": file.path.name, "usable": False, "problem": problem})
        rows.append(("", "", file.path.name, "", "not taken", problem))
    return Table(
        "voices",
        f"Voices in {voices.root}",
        ("speaker", "voice", "clip", "seconds", "transcript", "text"),
        tuple(rows),
        tuple(records),
        empty=voices.problem or f"No clips in {voices.root}. Put reference.wav and reference1.wav there.",
    )


_SHOWN_AS_FACTS = {
    "hf_token", "model", "adapter", "device", "dtype", "quantize", "context", "output", "speaker",
}  # fmt: skip


@_command()
def _status(studio: Studio, args: str) -> Iterator[Event]:
    """model, device, context, settings with their origin, output folder"""
    model, settings = studio.model, studio.settings
    facts: dict[str, str] = {
        "model": f"{model.name}"
        + (f" @ {model.revision[:12]}" if model.revision else "")
        + (f" + {model.adapter}" if model.adapter else ""),
        "parameters": f"{model.n_parameters / 1e6:.0f} M",
        "device": model.device,
        "dtype": model.dtype,
        "quantisation": model.quantize,
        "context": f"{studio.context_used} / {studio.engine.max_positions} positions",
        "turns": f"{len(studio.conversation)}, {len(studio.conversation.kept)} in the context",
        "primary speaker": f"{studio.primary} ({studio.voice(studio.primary)})",
        "output": str(studio.takes.folder or studio.takes.root),
    }
    records: list[dict[str, Any]] = [
        {"name": name, "value": value, "origin": None} for name, value in facts.items()
    ]
    for item in specs():
        if item.name in {
            "hf_token",
            "model",
            "device",
            "dtype",
            "quantize",
            "output",
            "speaker",
            "context",
            "adapter",
        }:
            continue
        value = setting_text(item, getattr(settings, item.name))
        records.append({"name": item.dashed, "value": value, "origin": settings.origin(item.name)})
    rows = tuple((record["name"], record["value"], record["origin"] or "") for record in records)
    yield Table("status", "Status", ("what", "value", "from"), rows, tuple(records))


def _live_names(studio: Studio) -> Sequence[str]:
    return [item.dashed for item in specs() if item.live]


@_command("name value", complete=_live_names)
def _set(studio: Studio, args: str) -> Iterator[Event]:
    """changes a setting, such as temperature, seed or max-seconds; alone it lists them"""
    if not args:
        yield _live_settings(studio)
        return
    live = ", ".join(_live_names(studio))
    name, _, text = args.partition(" ")
    try:
        item = spec(name)
    except KeyError:
        nearest = closest(name, [item.dashed for item in specs() if item.live])
        hint = f"Did you mean {nearest.lower()}?" if nearest else f"The names: {live}."
        raise LineError(f"There is no setting {name[:40]!r}.", hint) from None
    if not item.live:
        raise LineError(
            f"{item.dashed} cannot be changed while the program runs.",
            f"Restart csm-repl with it. $SET$ can change: {live}.",
        )
    old = setting_text(item, getattr(studio.settings, item.name))
    if not text.strip():
        yield Notice(f"{item.dashed} is {old} ({studio.settings.origin(item.name)}): {item.help}.")
        return
    studio.set(item.name, parse_value(item, text, "$SET$"))
    new = setting_text(item, getattr(studio.settings, item.name))
    yield Notice(f"{item.dashed}: {old} -> {new}")


def _live_settings(studio: Studio) -> Table:
    records = [
        {
            "name": item.dashed,
            "value": setting_text(item, getattr(studio.settings, item.name)),
            "origin": studio.settings.origin(item.name),
            "help": item.help,
        }
        for item in specs()
        if item.live
    ]
    rows = tuple((each["name"], each["value"], each["origin"], each["help"]) for each in records)
    return Table("settings", "Settings", ("name", "value", "from", "means"), rows, tuple(records))


@_command()
def _undo(studio: Studio, args: str) -> Iterator[Event]:
    """drops the last line's turns from the context; files stay"""
    removed = studio.undo()
    if not removed:
        raise LineError("There is nothing to undo.", "No line is in the conversation.")
    yield studio.withdraw(removed)
    yield Notice(
        f"Dropped line {removed[0].line} ({_count(len(removed), 'turn')}) from the context. The files stay."
    )


@_command()
def _retry(studio: Studio, args: str) -> Iterator[Event]:
    """makes the last line's turns again with a new seed; files stay"""
    yield from studio.retry()


@_command("[n]")
def _play(studio: Studio, args: str) -> Iterator[Event]:
    """plays line n (7) or turn n (7.2) again; the last line without n"""
    number = _number_of("PLAY", args) if args else None
    for file in studio.sound_of(number):
        yield PlayFile(file)


def _number_of(command: str, text: str) -> TakeNumber:
    number = TakeNumber.parse(text)
    if number is None:
        raise LineError(
            f"${command}$ takes the number of a line or of a turn, not {text[:40]!r}.",
            "For example 7, or 7.2 for the second turn of line 7; $HISTORY$ shows the numbers.",
        )
    return number


def _saved(studio: Studio) -> Sequence[str]:
    from csm_repl.session.store import saved_names

    return saved_names(studio.takes.root)


@_command("name", complete=_saved)
def _save(studio: Studio, args: str) -> Iterator[Event]:
    """saves the session as a folder"""
    if not args:
        raise LineError("$SAVE$ needs a name.", "For example $SAVE interview$.")
    saved = studio.save(args)
    yield Notice(f"Saved {_count(saved.n_turns, 'turn')} in {saved.folder}.")
    if saved.notice:
        yield Notice(saved.notice, "warning")


@_command("name", complete=_saved)
def _load(studio: Studio, args: str) -> Iterator[Event]:
    """goes on with a saved session"""
    from csm_repl.session.store import load_session, saved_folder

    if not args:
        names = ", ".join(_saved(studio))
        raise LineError("$LOAD$ needs a name.", f"There is: {names}." if names else "Nothing is saved yet.")
    config = studio.engine.model.config
    conversation, header = load_session(
        saved_folder(studio.takes.root, args),
        n_codebooks=config.n_codebooks,
        codebook_size=config.audio_vocab_size,
        vocab_size=config.text_vocab_size,
    )
    primary, model = header.get("primary"), header.get("model")
    if type(primary) is not int or not 0 <= primary <= LAST_SPEAKER:
        primary = studio.primary
    studio.adopt(conversation, primary)
    yield Notice(f"Loaded {_count(len(conversation), 'turn')}. {_primary(studio).text}")
    if model != studio.model.name:
        made_with = model[:100] if isinstance(model, str) else "another model"
        yield Notice(
            f"It was made with {made_with}; {studio.model.name} is loaded, so voices may differ.", "warning"
        )


def setting_text(item: SettingSpec, value: Any) -> str:
    """A setting's value as `$SET$` would take it."""
    if item.name == "max_seconds":
        shown = max_seconds_text(value)
        return shown if isinstance(shown, str) else f"{shown:g}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if item.name == "seed" and value is None:
        return "random"
    if item.name == "play" and value is None:
        return "in a terminal"
    return "-" if value is None else str(value)


def _primary(studio: Studio) -> Notice:
    clips = studio.voices.of(studio.primary)
    whose = f"the voice of {studio.voice(studio.primary)}" if clips else "no reference clip"
    return Notice(f"Primary speaker {studio.primary}: {whose}.")


def _count(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"
