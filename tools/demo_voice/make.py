"""Makes the built-in voice from an empty folder, in one go.

    python -m tools.demo_voice.make FOLDER [--share 1.0] [--list]

Runs the steps of the recipe one after the other and keeps what they print in FOLDER/run.log. A step that is
done is not run again; one that was interrupted goes on where it can (the trainings do), so the same command
continues. `--share` shortens everything, to try the recipe out: 0.01 takes some minutes and gives a voice
that nobody understands. The result is in FOLDER/package, laid out as `csm_repl/demo/`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Step", "run_steps", "steps"]

SENTENCES = 24_000
CODEC_MINUTES, SINGLES_MINUTES, TURNS_MINUTES, REFINE_MINUTES = 30.0, 20.0, 60.0, 10.0
TEMPERATURE = "0.45"
_TRAINING = (
    "--batch-frames 2400 --weight-decay 0.05 --epochs 1000 --eval-every 500 --held-out 0.004 "
    "--warmup-steps 100"
)


@dataclass(frozen=True)
class Step:
    name: str
    command: tuple[str, ...]
    """A module and its arguments."""


def steps(folder: Path, share: float) -> Iterator[Step]:
    """The recipe.

    Args:
        folder: where everything is made.
        share: of the sentences and minutes.
    """

    def at(name: str) -> str:
        return str(folder / name)

    def minutes(usual: float) -> str:
        return f"{max(0.2, usual * share):.1f}"

    n_sentences = max(300, round(SENTENCES * share))
    tool = "tools.demo_voice"
    yield Step("front", (f"{tool}.lexicon", at("front")))
    yield Step("corpus", (f"{tool}.corpus", at("corpus"), "--sentences", str(n_sentences)))
    codec = (at("corpus"), at("codec"), "--minutes", minutes(CODEC_MINUTES))
    yield Step("codec", (f"{tool}.train_codec", *codec))
    yield Step("conversations", (f"{tool}.conversations", at("corpus")))
    yield Step("start", (f"{tool}.prepare_model", at("codec"), at("front"), at("start")))
    # It learns to read before it learns to answer.
    yield Step(
        "singles",
        ("csm_repl", "train", at("corpus/singles.jsonl"), "--from-scratch", at("start"), "-o", at("singles"),
         *_TRAINING.split(), "--lr", "2e-3", "--depth-fraction", "0.15", "--frame-dropout", "0.2",
         "--ema", "0.99", "--final-lr-share", "0.5", "--max-minutes", minutes(SINGLES_MINUTES)),
    )  # fmt: skip
    yield Step(
        "turns",
        ("csm_repl", "train", at("corpus/conversations.jsonl"), "--full", "--model", at("singles/model"),
         "-o", at("turns"), *_TRAINING.split(), "--lr", "1.8e-3", "--depth-fraction", "0.35",
         "--frame-dropout", "0.15", "--ema", "0.998", "--voice-dropout", "0.5", "--speaker-weight", "0.3",
         "--max-minutes", minutes(TURNS_MINUTES)),
    )  # fmt: skip
    refine = (at("corpus"), at("refined"), "--refine", at("codec"), "--model", at("turns/model"))
    limit = ("--limit", str(max(200, round(5000 * share))))
    yield Step("refined", (f"{tool}.train_codec", *refine, "--minutes", minutes(REFINE_MINUTES), *limit))
    for name in ("test", "everyday"):
        scores = ("--set", name, "--temperature", TEMPERATURE, "--json", at(f"{name}.json"))
        yield Step(f"scores-{name}", (f"{tool}.score", at("model"), at("corpus"), *scores))
    published = (at("model"), at("refined"), at("test.json"), "--temperature", TEMPERATURE)
    yield Step("package", (f"{tool}.publish", *published, "--to", at("package")))


def run_steps(folder: Path, todo: Sequence[Step], run: Callable[[Step], int]) -> int:
    """Runs what is not done; returns 0, or the exit code of the step that failed."""
    done = folder / "done"
    done.mkdir(parents=True, exist_ok=True)
    for step in todo:
        if (done / step.name).exists():
            continue
        if step.name.startswith("scores"):
            _put_together(folder)
        code = run(step)
        if code:
            return code
        (done / step.name).touch()
    return 0


def _put_together(folder: Path) -> None:
    """The model with the codec whose decoder expects its errors."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    for source in (folder / "turns" / "model", folder / "refined"):
        for path in source.iterdir():
            if path.is_file() and path.suffix != ".pt":
                (model / path.name).write_bytes(path.read_bytes())


def _logged(folder: Path) -> Callable[[Step], int]:
    def run(step: Step) -> int:
        started = time.monotonic()
        with (folder / "run.log").open("a") as log:
            log.write(f"$ python -m {' '.join(step.command)}\n")
            log.flush()
            code = subprocess.run(
                [sys.executable, "-m", *step.command], stdout=log, stderr=subprocess.STDOUT, env=os.environ
            ).returncode
            took = f"{step.name}: {(time.monotonic() - started) / 60:.1f} min, exit code {code}"
            log.write(f"# {took}\n\n")
        print(took, flush=True)
        return code

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the sentences and minutes")
    parser.add_argument("--list", action="store_true", help="only show the commands")
    arguments = parser.parse_args()
    todo = list(steps(arguments.folder, arguments.share))
    if arguments.list:
        for step in todo:
            print(f"{step.name}: python -m {' '.join(step.command)}")
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sys.exit(run_steps(arguments.folder, todo, _logged(arguments.folder)))


if __name__ == "__main__":
    main()
