"""Writes `.env.example` from the settings registry: python -m tools.env_example"""

from __future__ import annotations

from pathlib import Path

from csm_repl.settings import specs
from csm_repl.studio.commands import setting_text


def text() -> str:
    lines = [
        "# Copy this file to .env and uncomment what you want to change.",
        "# A command line flag beats the environment, the environment beats this file.",
    ]
    for item in specs():
        if item.env is None:
            continue
        value = (
            "" if item.default is None and item.name != "max_seconds" else setting_text(item, item.default)
        )
        lines += ["", f"# {item.help}", f"# {item.env}={value}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent.parent / ".env.example").write_text(text())
