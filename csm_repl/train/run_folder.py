"""The folder of a run: which files it has, and whether it can go on.

options.json            what the run was started with
speakers.json           whose number is whose
metrics.csv, train.log, dashboard.png, samples/
state.pt                what the run goes on from
best/                   the best weights so far: a model, or an adapter
adapter/, adapter-peft/, model/, model-transformers/    the results
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

from csm_repl import __version__
from csm_repl.audio import output_error, write_bytes_atomic
from csm_repl.errors import OutputError, UsageError
from csm_repl.paths import remove_leftovers
from csm_repl.train.flags import flag_of, option_fields, shown_value
from csm_repl.train.options import DataOptions, TrainOptions

__all__ = ["RunFolder"]


class RunFolder:
    """Paths of a run, and what was noted when it began.

    Args:
        root: the folder; made by `begin`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options = root / "options.json"
        self.metrics = root / "metrics.csv"
        self.log = root / "train.log"
        self.dashboard = root / "dashboard.png"
        self.tensorboard = root / "tensorboard"
        self.samples = root / "samples"
        self.state = root / "state.pt"
        self.best = root / "best"
        self.adapter = root / "adapter"
        self.adapter_peft = root / "adapter-peft"
        self.model = root / "model"
        self.transformers = root / "model-transformers"

    def begin(
        self, options: TrainOptions, data: DataOptions, about: Mapping[str, Any], *, resume: bool
    ) -> tuple[bool, str]:
        """Gets the folder ready.

        Args:
            options, data: what the run is started with.
            about: more that is noted; `model` and `codec` must stay the same when a run goes on.
            resume: go on with a run that is there; else it is moved aside.

        Returns:
            Whether there is a state to go on from, and a sentence for the user, '' where there is none.

        Raises:
            UsageError: the run that is there was started with other options.
            OutputError: the folder cannot be written.
        """
        notice = ""
        results = (self.best, self.adapter, self.adapter_peft, self.model, self.transformers)
        for folder in (self.root, self.samples, *results):
            remove_leftovers(folder)
        if self.state.is_file():
            if resume:
                self._check_same(options, data, about)
                return True, f"Going on with the run in {self.root}."
            notice = self._move_aside()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.root, error) from error
        noted = {
            "csm_repl": __version__,
            **about,
            "options": _plain(options),
            "data_options": _plain(data),
        }
        text = json.dumps(noted, indent=1, ensure_ascii=False) + "\n"
        write_bytes_atomic(self.options, text.encode("utf-8", "replace"), replace=True)
        return False, notice

    def _check_same(self, options: TrainOptions, data: DataOptions, about: Mapping[str, Any]) -> None:
        try:
            noted = json.loads(self.options.read_text(encoding="utf-8"))
            before = {**noted["options"], **noted["data_options"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self.root} has a state to go on from, but no readable options.json.",
                "Start anew with --no-resume, or give another --out.",
            ) from error
        now = {**_plain(options), **_plain(data)}
        changes = [
            f"{flag_of(item)} was {_shown(before.get(item.name))} and is {_shown(now[item.name])}"
            for item in option_fields(TrainOptions, DataOptions)
            if not item.metadata["free"] and before.get(item.name) != now[item.name]
        ]
        if before.get("mode") != now["mode"]:
            changes.insert(0, f"its mode was {before.get('mode')} and is {now['mode']}")
        changes += [
            f"the {key} was {noted.get(key)} and is {about.get(key)}"
            for key in ("model", "codec")
            if noted.get(key) != about.get(key)
        ]
        if changes:
            raise UsageError(
                f"{self.root} holds a run that was started differently: {'; '.join(changes)}.",
                "Give the same options to go on, another --out, or --no-resume to start anew.",
            )

    def _move_aside(self) -> str:
        root = self.root.resolve()
        numbered = (root.with_name(f"{root.name}.old-{number}") for number in count(1))
        aside = next(path for path in numbered if not path.exists())
        try:
            root.rename(aside)
        except OSError as error:
            raise OutputError(
                f"The earlier run in {self.root} cannot be moved aside: {error.strerror}.",
                "Give another --out.",
            ) from error
        return f"The earlier run was moved to {aside}."


def _plain(options: TrainOptions | DataOptions) -> dict[str, Any]:
    """As JSON gives it back."""
    return dict(json.loads(json.dumps(dataclasses.asdict(options), default=str)))


def _shown(value: Any) -> str:
    return shown_value(tuple(value) if isinstance(value, list) else value) or "not given"
