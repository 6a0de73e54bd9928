"""Draws docs/console.png: what a scripted session of the console leaves on the screen.

    python -m tools.screenshot [--out docs/console.png] [--model DIR]

Runs the real program on a pseudo-terminal. Without --model it speaks with random weights, which the
picture says, and in voices that espeak-ng made if it is installed. Needs the test extra and Pillow.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pyte
from PIL import Image, ImageDraw, ImageFont

from tests.support.speech import write_clip
from tests.support.terminal import Terminal, program
from tools.random_checkpoint import write_checkpoint

COLUMNS, ROWS = 100, 37
FONT_SIZE = 26
LINE_HEIGHT = 36
MARGIN, BAR = 36, 56
FONTS = Path("/usr/share/fonts/truetype/dejavu")
BACKGROUND, FOREGROUND, FRAME = "#16181d", "#d6d9de", "#2a2d34"
BUTTONS = ("#ff5f57", "#febc2e", "#28c840")
COLORS = {
    "black": "#2a2d34",
    "red": "#f07178",
    "green": "#9fd06a",
    "brown": "#e6c06a",
    "blue": "#6ba4f0",
    "magenta": "#d191e8",
    "cyan": "#5fc9d8",
    "white": "#d6d9de",
    "brightblack": "#6b7280",
    "brightblue": "#82b5ff",
}
VOICES = {
    "reference-anna": ("en-us+f3", "I collect vinyl records, mostly old jazz."),
    "reference1-ben": ("en-gb+m3", "Really? I had no idea people still do that."),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a picture of the console.")
    parser.add_argument("--out", type=Path, default=Path("docs/console.png"))
    parser.add_argument("--model", type=Path, help="a checkpoint; a tiny one with random weights by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        _write_voices(home / "references")
        model = arguments.model or write_checkpoint(home / "csm-random-tiny")
        screen = _session(model.resolve(), home)
    draw(screen).save(arguments.out, optimize=True)
    print(f"{arguments.out}: {screen.columns} columns, {screen.lines} lines")


def _write_voices(folder: Path) -> None:
    folder.mkdir()
    for stem, (voice, text) in VOICES.items():
        path = folder / f"{stem}.wav"
        if shutil.which("espeak-ng"):
            subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True)
            path.with_suffix(".txt").write_text(text + "\n")
        else:
            write_clip(path, text)


def _session(model: Path, home: Path) -> pyte.Screen:
    env = {
        **os.environ,
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "OMP_NUM_THREADS": "1",
    }
    env.pop("NO_COLOR", None)
    terminal = Terminal(
        program("--model", str(model), "--device", "cpu", "--dtype", "bfloat16", "--no-play", "--seed", "7"),
        cwd=home,
        env=env,
        columns=COLUMNS,
        rows=ROWS,
    )
    try:
        terminal.see(r"^0 anna>$")
        terminal.enter(
            "Yeah, they're real cool.||I see that Yala! How rare are they?||I dunno, they're a pwii.0",
            r"^  outputs/\S+/001\.wav$",
        )
        terminal.enter("Ben: It's $5 at 10:30 [pause 0.5] isn't it?", r"^  outputs/\S+/002\.wav$")
        terminal.enter("$HISTORY$", r"002\.wav$\n\n0 anna>$")
        terminal.send("Anna: And what do you think?||Ben: Nobody has asked me yet.||I have!0")
        terminal.see(r"I have!0$")
        terminal.see(r"^ 0 anna  context")
    finally:
        terminal.close()
    return _with_faint(terminal.raw)


def _with_faint(raw: bytes) -> pyte.Screen:
    """The screen once more, with grey for faint, which pyte does not know."""
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.ByteStream(screen).feed(re.sub(rb"\x1b\[2m", b"\x1b[90m", raw))
    return screen


def draw(screen: pyte.Screen) -> Image.Image:
    """The screen as a window, in the fonts of DejaVu."""
    regular = ImageFont.truetype(FONTS / "DejaVuSansMono.ttf", FONT_SIZE)
    bold = ImageFont.truetype(FONTS / "DejaVuSansMono-Bold.ttf", FONT_SIZE)
    cell = regular.getlength("m")
    size = round(screen.columns * cell) + 2 * MARGIN, screen.lines * LINE_HEIGHT + BAR + MARGIN
    image = Image.new("RGBA", size)
    canvas = ImageDraw.Draw(image)
    canvas.rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), 22, fill=BACKGROUND, outline=FRAME, width=3)
    for index, color in enumerate(BUTTONS):
        x = MARGIN + 34 * index
        canvas.ellipse((x, 20, x + 18, 38), fill=color)
    for row in range(screen.lines):
        for column in range(screen.columns):
            _draw_cell(
                canvas, screen.buffer[row][column], MARGIN + column * cell, BAR + row * LINE_HEIGHT, cell,
                (regular, bold),
            )  # fmt: skip
    _draw_cursor(canvas, screen, cell)
    return image


def _draw_cell(canvas: Any, char: Any, x: float, y: int, cell: float, fonts: tuple[Any, Any]) -> None:
    ink = _color(char.fg, FOREGROUND)
    paper = _color(char.bg, BACKGROUND)
    if char.reverse:
        ink, paper = paper, ink
    if paper != BACKGROUND:
        canvas.rectangle((x, y, x + cell, y + LINE_HEIGHT - 1), fill=paper)
    if char.data.strip():
        canvas.text((x, y + 2), char.data, font=fonts[bool(char.bold)], fill=ink)
    if char.underscore:
        canvas.line((x, y + LINE_HEIGHT - 4, x + cell, y + LINE_HEIGHT - 4), fill=ink, width=2)


def _draw_cursor(canvas: Any, screen: pyte.Screen, cell: float) -> None:
    x, y = MARGIN + screen.cursor.x * cell, BAR + screen.cursor.y * LINE_HEIGHT
    canvas.rectangle((x, y, x + cell, y + LINE_HEIGHT - 1), fill=FOREGROUND)


def _color(name: str, default: str) -> str:
    if name == "default":
        return default
    return COLORS.get(name) or f"#{name}"


if __name__ == "__main__":
    main()
