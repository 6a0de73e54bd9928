"""Writes the options' table in docs/training.md from the registry: python -m tools.training_options"""

from __future__ import annotations

from pathlib import Path

from csm_repl.train.flags import flag_of, option_fields, shown_value
from csm_repl.train.options import DataOptions, TrainOptions

PAGE = Path(__file__).parent.parent / "docs" / "training.md"
START, END = "<!-- options -->\n", "<!-- end -->"


def table() -> str:
    lines = ["| option | default | means |", "|---|---|---|"]
    for item in option_fields(TrainOptions, DataOptions):
        default = shown_value(item.default)
        value = f" {item.metadata['metavar']}" if not isinstance(item.default, bool) else ""
        shown = f"`{default}`" if default and not isinstance(item.default, bool) else ""
        lines.append(f"| `{flag_of(item)}{value}` | {shown} | {item.metadata['help']} |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """The page with the table as it is now."""
    before, rest = page.split(START)
    return before + START + table() + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
