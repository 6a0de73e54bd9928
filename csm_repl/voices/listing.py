"""Who has a voice, judged from the names in the references folder alone: nothing is opened."""

from __future__ import annotations

from pathlib import Path

from csm_repl.voices.names import parse_name

__all__ = ["ListedVoices"]


class ListedVoices:
    """The voices of a folder whose clips are taken on trust.

    Args:
        root: the folder; it may be missing.
    """

    unusable = ()
    """No clip has been opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            files = [file.name for file in root.iterdir()]
        except OSError:
            files = []
        clips = sorted((clip.speaker, clip.name or "") for clip in map(parse_name, files) if clip is not None)
        self.speakers: dict[int, str | None] = {}
        """As `VoiceFolder.speakers`."""
        for speaker, name in clips:
            self.speakers[speaker] = self.speakers.get(speaker) or name or None

    def of(self, speaker: int) -> tuple[int, ...]:
        """Whether the speaker has a clip: empty where it has none."""
        return (speaker,) if speaker in self.speakers else ()

    def name(self, speaker: int) -> str:
        """As `VoiceFolder.name`."""
        return self.speakers.get(speaker) or f"speaker {speaker}"
