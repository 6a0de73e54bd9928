"""From settings to a studio: what has to be set in the whole process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# huggingface_hub's switch is global and its variable beats it, so this runs in a process of its own.
_CODE = """
import sys
from huggingface_hub.utils import are_progress_bars_disabled
from csm_repl.errors import ModelError
from csm_repl.settings import load_settings
from csm_repl.studio import open_studio

for quiet in (None, True):
    flags = {"model": "nowhere", "output": sys.argv[1], "quiet": quiet}
    try:
        open_studio(load_settings({k: v for k, v in flags.items() if v is not None}, environ={}, dotenv=None))
    except ModelError:
        print(are_progress_bars_disabled())
"""


def test_quiet_turns_the_bars_of_downloads_off(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(tmp_path)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
