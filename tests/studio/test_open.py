"""From settings to a studio: which model, and what has to be set in the whole process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from csm_repl.errors import CheckpointError, HubError
from csm_repl.files.config import parse_config
from csm_repl.model.csm import CSM
from csm_repl.settings import Settings, load_settings
from csm_repl.studio.open import find_wanted_model, open_studio, with_recommended_sampling

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


# Which model speaks when nobody chose one


@pytest.fixture
def builtin(monkeypatch: pytest.MonkeyPatch, micro_checkpoint: Path) -> Path:
    for module in ("csm_repl.files.hub", "csm_repl.studio.open"):
        monkeypatch.setattr(f"{module}.builtin_folder", lambda: micro_checkpoint)
    return micro_checkpoint


def _settings(**flags: object) -> Settings:
    return load_settings({"offline": True, **flags}, environ={}, dotenv=None)


def test_without_csm_1b_the_built_in_voice_speaks_and_one_notice_says_why(
    builtin: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    studio = open_studio(_settings(output=str(tmp_path)), say=said.append)
    assert studio.model.name == builtin.name
    notices = [text for text in said if "built-in" in text]
    assert len(notices) == 1
    assert "CSM-1B is not here" in notices[0]
    assert "hf download sesame/csm-1b" in notices[0]


def test_a_model_that_was_asked_for_is_never_replaced(builtin: Path) -> None:
    with pytest.raises(HubError):
        find_wanted_model(_settings(model="sesame/csm-1b"))


def test_a_model_from_the_environment_counts_as_asked_for(builtin: Path) -> None:
    settings = load_settings({"offline": True}, environ={"CSM_REPL_MODEL": "sesame/csm-1b"}, dotenv=None)
    with pytest.raises(HubError):
        find_wanted_model(settings)


def test_demo_is_the_built_in_voice_without_a_notice(builtin: Path, tmp_path: Path) -> None:
    said: list[str] = []
    open_studio(_settings(model="demo", output=str(tmp_path)), say=said.append)
    assert not [text for text in said if "built-in" in text]


def test_cached_csm_1b_is_preferred_to_the_built_in_voice(
    builtin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = object()
    monkeypatch.setattr("csm_repl.studio.open.find_model", lambda *_, **__: found)
    assert find_wanted_model(_settings()) == (found, None)


def test_an_installation_without_the_built_in_voice_says_how_to_get_csm_1b(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in ("csm_repl.files.hub", "csm_repl.studio.open"):
        monkeypatch.setattr(f"{module}.builtin_folder", lambda: tmp_path / "demo")
    with pytest.raises(HubError, match="hf download"):
        find_wanted_model(_settings())
    with pytest.raises(CheckpointError, match="no built-in voice"):
        find_wanted_model(_settings(model="demo"))


def test_the_models_own_sampling_holds_where_the_user_chose_none(micro_model: CSM) -> None:
    config = replace(micro_model.config, temperature=0.5, top_k=7)
    settings = with_recommended_sampling(_settings(top_k="9"), config)
    assert (settings.temperature, settings.origin("temperature")) == (0.5, "the model")
    assert (settings.top_k, settings.origin("top_k")) == (9, "--top-k")
    assert with_recommended_sampling(_settings(), micro_model.config) == _settings()


def test_a_config_may_recommend_a_temperature_and_top_k(micro_checkpoint: Path) -> None:
    config = json.loads((micro_checkpoint / "config.json").read_text())
    parsed = parse_config({**config, "sampling": {"temperature": 0.5, "top_k": 7}}, source="config.json")
    assert (parsed.temperature, parsed.top_k) == (0.5, 7)
    assert parse_config(config, source="config.json").temperature is None
    with pytest.raises(CheckpointError):
        parse_config({**config, "sampling": {"temperature": "warm"}}, source="config.json")


@pytest.mark.parametrize(
    ("context", "said"), [("auto", False), ("1000", False), ("2048", False), ("2049", True)]
)
def test_a_context_beyond_the_models_is_said(
    quick_checkpoint: Path, tmp_path: Path, context: str, said: bool
) -> None:
    told: list[str] = []
    folders = {"output": str(tmp_path / "out"), "references": str(tmp_path)}
    studio = open_studio(
        _settings(model=str(quick_checkpoint), context=context, device="cpu", **folders), say=told.append
    )
    assert studio.engine.max_positions == (2048 if context == "auto" else int(context))
    assert any("beyond the 2048" in sentence for sentence in told) == said
