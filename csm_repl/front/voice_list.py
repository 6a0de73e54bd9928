"""What `csm-repl voices` shows: who has a voice, and what to do about every other file, in one screenful.

Files with the same fault stand together; what is quickest to mend comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.terminal import defused

if TYPE_CHECKING:
    from csm_repl.voices import VoiceFolder

__all__ = ["voice_faults", "voice_list"]

_FEW = 3
"""Files of a group that are named where there is no room for all."""
_RENAME = "Rename"
_NUMBER = re.compile(r"\d[\d.,]*")


def voice_list(voices: VoiceFolder, *, whisper: bool, width: int, height: int | None = None) -> list[str]:
    """Lines of at most `width` cells.

    Args:
        voices: after a look.
        whisper: whether missing transcripts will be written at the next start.
        height: lines to show; the least useful ones give way. None: everything.
    """
    groups = _groups(voices, whisper)
    head = [*_wrapped(defused(_title(voices, whisper)).split(), width), ""]
    lines = _page(head, _by_line(voices, width), [_group(group, width) for group in groups])
    if height is None or len(lines) <= height:
        return lines
    pages = [_shortened(head, _by_name(voices, width), groups, width, height, most) for most in (None, _FEW)]
    return max(pages)[1]


def _shortened(
    head: list[str], speakers: list[str], groups: list[Group], width: int, height: int, most: int | None
) -> tuple[int, list[str]]:
    """As many groups as `height` has room for, each with `most` names; and how many files are named."""
    wrapped = [_group(group, width, most) for group in groups]
    sizes = [len(files) for files, _ in groups]
    for n in range(len(groups), -1, -1):
        n_left = sum(sizes[n:])
        rest = f"{_count(n_left, 'more file')}: csm-repl voices | less shows everything."
        lines = _page(head, speakers, [*wrapped[:n], *([_wrapped(rest.split(), width)] if n_left else [])])
        if len(lines) <= height:
            break
    return sum(min(size, most or size) for size in sizes[:n]), lines[:height]


def voice_faults(voices: VoiceFolder, *, whisper: bool) -> list[str]:
    """A sentence or two for each group of files, of which a few are named."""
    return [" ".join(_group(group, 1 << 20, _FEW)) for group in _groups(voices, whisper)]


Group = tuple[list[str], str]
"""Names of files, and what is wrong with all of them."""


def _title(voices: VoiceFolder, whisper: bool) -> str:
    if voices.problem:
        return voices.problem
    if not (voices.clips or voices.unusable or voices.ignored):
        where = "No clips in" if voices.root.is_dir() else "There is no folder"
        return f"{where} {voices.root}. Put reference.wav and reference1.wav there."
    n_clips, n_speakers = len(voices.clips), len(voices.speakers)
    waiting = sum(bad.needs_words for bad in voices.unusable) if whisper else 0
    counts = [
        (len(voices.unusable) - waiting, "cannot be used"),
        (waiting, "wait for Whisper" if waiting != 1 else "waits for Whisper"),
        (len(voices.ignored), "not taken"),
    ]
    rest = "".join(f", {n} {what}" for n, what in counts if n)
    return f"{voices.root}: {_count(n_clips, 'clip')} of {_count(n_speakers, 'speaker')}{rest}."


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _by_line(voices: VoiceFolder, width: int) -> list[str]:
    """A line for each clip: speaker, name, seconds, words."""
    names = [defused(name or "") for name in voices.speakers.values()]
    room = min(20, max(map(len, names), default=0))
    lines = []
    for clip in voices.clips:
        name = defused(voices.speakers[clip.speaker] or "")
        heard = " (Whisper)" if clip.transcript == "whisper" else ""
        line = f"{clip.speaker:>3} {_fitted(name, room):<{room}} {clip.seconds:>5.1f} s{heard}  "
        lines.append(_fitted(line + defused(clip.text), width))
    return lines


def _by_name(voices: VoiceFolder, width: int) -> list[str]:
    pieces = []
    for speaker, name in voices.speakers.items():
        n_clips = len(voices.of(speaker))
        label = f"{speaker} {defused(name)}" if name else str(speaker)
        pieces.append(label + (f" ({n_clips} clips)" if n_clips > 1 else ""))
    return _wrapped(["Speakers:", *_listed(pieces)], width) if pieces else []


def _groups(voices: VoiceFolder, whisper: bool) -> list[Group]:
    """Renaming first, then what Whisper will do, then the faults that most files have."""
    renames = [f"{file.path.name} to {file.better}" for file in voices.ignored if file.better]
    groups: list[Group] = []
    if renames:
        groups.append((renames, _RENAME))
    waiting = [bad.path.name for bad in voices.unusable if bad.needs_words and whisper]
    if waiting:
        groups.append((waiting, "No transcript yet. Whisper writes it when csm-repl starts."))
    faults: dict[tuple[str, str], list[tuple[Path, str]]] = {}
    for bad in voices.unusable:
        if not (bad.needs_words and whisper):
            _add(faults, bad.path, bad.cause, bad.remedy)
    for file in voices.ignored:
        if not file.better:
            _add(faults, file.path, file.cause, file.remedy)
    for clip in voices.clips:
        if clip.remark:
            _add(faults, clip.path, clip.remark, "")
    for found in sorted(faults.values(), key=len, reverse=True):
        groups.append(([path.name for path, _ in found], _common(found)))
    return groups


def _add(faults: dict[tuple[str, str], list[tuple[Path, str]]], path: Path, cause: str, remedy: str) -> None:
    text = f"{cause} {remedy}".strip()
    # Files with the same fault differ in its numbers, and in the names in the remedy.
    key = _NUMBER.sub("#", cause), _NUMBER.sub("#", remedy.replace(path.stem, ""))
    faults.setdefault(key, []).append((path, text))


def _common(found: Sequence[tuple[Path, str]]) -> str:
    """What is true of all these files."""
    texts = {text.replace(path.stem, "NAME") if len(found) > 1 else text for path, text in found}
    if len(texts) == 1:
        return texts.pop()
    words = zip(*(text.split() for text in sorted(texts)), strict=True)
    return " ".join(same[0] if len(set(same)) == 1 else "…" for same in words)


def _group(group: Group, width: int, most: int | None = None) -> list[str]:
    files, text = group
    shown = [defused(name) for name in files[:most]]
    if len(shown) < len(files):
        shown.append(f"{len(files) - len(shown)} more")
    if text == _RENAME:
        return _wrapped([_RENAME, *_listed(shown, ".")], width)
    return _wrapped([*_listed(shown, ":"), *defused(text).split()], width)


def _listed(pieces: Sequence[str], end: str = "") -> list[str]:
    return [*(f"{piece}," for piece in pieces[:-1]), *(f"{piece}{end}" for piece in pieces[-1:])]


def _page(head: list[str], speakers: list[str], groups: Iterable[list[str]]) -> list[str]:
    lines = [*head, *speakers]
    rest = [line for group in groups for line in group]
    if speakers and rest:
        lines.append("")
    return [*lines, *rest] if rest or speakers else head[:-1]


def _wrapped(pieces: Iterable[str], width: int) -> list[str]:
    """Pieces with spaces between them, in lines; the second and further ones are indented."""
    from rich.cells import cell_len

    lines: list[str] = []
    line = ""
    for piece in pieces:
        longer = f"{line} {piece}" if line.strip() else line + piece
        if line.strip() and cell_len(longer) > width:
            lines.append(line)
            longer = f"    {piece}"
        line = longer
    return [_fitted(line, width) for line in (*lines, line)]


def _fitted(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
