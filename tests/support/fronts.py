"""A text front of a few words, as a model folder has it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

LEXICON = {
    "a": "AH0",
    "don't": "D OW1 N T",
    "hello": "HH AH0 L OW1",
    "i": "AY1",
    "life": "L AY1 F",
    "world": "W ER1 L D",
}
LETTERS = {
    **{"b": "B", "d": "D", "e": "", "g": "G", "l": "L", "o": "AA1", "r": "R", "s": "S", "x": "K S"},
    "ol": "OW1",
}


def write_front(folder: Path) -> Path:
    """Writes `text.json` and its two files; returns the folder."""
    for name, rows in (("lexicon", LEXICON), ("letters", LETTERS)):
        content = "".join(f"{key} {phones}\n" for key, phones in sorted(rows.items()))
        (folder / f"{name}.txt.gz").write_bytes(gzip.compress(content.encode()))
    description = {"front": "phones", "lexicon": "lexicon.txt.gz", "letters": "letters.txt.gz"}
    (folder / "text.json").write_text(json.dumps(description))
    return folder
