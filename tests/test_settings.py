from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import ExitCode, UsageError
from csm_repl.settings import Settings, load_settings, parse_value, spec, specs
from tests.support.paths import ROOT


def _load(tmp_path: Path, env: dict[str, str] | None = None, dotenv: str = "", **flags: object) -> Settings:
    file = tmp_path / ".env"
    file.write_text(dotenv)
    return load_settings(flags, environ=env or {}, dotenv=file)


def test_a_flag_beats_the_environment_beats_dotenv_beats_the_default(tmp_path: Path) -> None:
    env, dotenv = {"CSM_REPL_TOP_K": "20"}, "CSM_REPL_TOP_K=10\nCSM_REPL_SEED=3\n"
    settings = _load(tmp_path, env, dotenv, top_k="30")
    assert (settings.top_k, settings.origin("top_k")) == (30, "--top-k")
    settings = _load(tmp_path, env, dotenv)
    assert (settings.top_k, settings.origin("top_k")) == (20, "$CSM_REPL_TOP_K")
    assert (settings.seed, settings.origin("seed")) == (3, ".env")
    assert (settings.temperature, settings.origin("temperature")) == (0.9, "default")


def test_the_hubs_own_variable_gives_the_token_and_is_never_shown(tmp_path: Path) -> None:
    settings = _load(tmp_path, {"HF_TOKEN": "hf_secret"})
    assert settings.hf_token == "hf_secret"
    with pytest.raises(UsageError) as caught:
        parse_value(spec("top-k"), "x", "here")
    assert "'x'" in str(caught.value)


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert _load(tmp_path, {"CSM_REPL_SEED": ""}).origin("seed") == "default"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_seconds", "auto", None),
        ("max_seconds", "off", math.inf),
        ("max_seconds", "2.5", 2.5),
        ("context", "auto", None),
        ("context", "4096", 4096),
        ("seed", "random", None),
        ("seed", "12", 12),
        ("device", "CUDA:1", "cuda:1"),
        ("quantize", "INT8", "int8"),
        ("quantize", "auto", "auto"),
        ("play", "off", False),
        ("references", "~/x", Path("~/x").expanduser()),
    ],
)
def test_values_parse(name: str, text: str, value: object) -> None:
    assert spec(name).parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("temperature", "-1"),
        ("temperature", "nan"),
        ("context", "63"),
        ("context", "1048577"),
        ("top_k", "0"),
        ("top_k", "1.5"),
        ("seed", "-3"),
        ("max_seconds", "0"),
        ("max_seconds", "long"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("device", "cpu:0"),
        ("dtype", "int8"),
        ("quantize", "int2"),
        ("quantize", "on"),
        ("color", "blue"),
        ("speaker", "-1"),
    ],
)
def test_a_bad_value_names_the_setting_the_value_and_where_it_came_from(
    tmp_path: Path, name: str, text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        _load(tmp_path, {f"CSM_REPL_{name.upper()}": text})
    message = str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
    assert spec(name).dashed in message
    assert f"$CSM_REPL_{name.upper()}" in message
    assert repr(text) in message


@given(st.text(max_size=20))
def test_no_text_makes_a_parser_raise_anything_but_a_usage_error(text: str) -> None:
    for item in specs():
        try:
            parse_value(item, text, "test")
        except UsageError:
            continue


def test_raw_needs_an_output_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="-o"):
        _load(tmp_path, raw=True)


def test_a_dotenv_that_is_no_text_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"\.env"):
        load_settings({}, environ={}, dotenv=tmp_path / ".env")


def test_the_example_file_lists_every_variable_with_its_help_and_default() -> None:
    text = (ROOT / ".env.example").read_text()
    for item in specs():
        if item.env is not None:
            assert f"# {item.help}" in text
            assert f"# {item.env}=" in text


def test_the_example_file_is_loadable_and_sets_nothing(tmp_path: Path) -> None:
    settings = load_settings({}, environ={}, dotenv=ROOT / ".env.example")
    assert settings == Settings()
    assert not settings.origins


def test_lines_that_hear_each_other_are_not_spoken_side_by_side(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--independent") as caught:
        _load(tmp_path, {"CSM_REPL_BATCH": "4"})
    assert "$CSM_REPL_BATCH" in str(caught.value)
    assert _load(tmp_path, batch="4", independent=True).batch == 4
    assert not _load(tmp_path, batch="1").independent


# .env and the environment


def test_nothing_in_a_dotenv_is_expanded(tmp_path: Path) -> None:
    dotenv = "HF_TOKEN=hf_secret\nCSM_REPL_MODEL=${HF_TOKEN}/$HF_TOKEN\nCSM_REPL_OUTPUT='a $HOME b'\n"
    settings = _load(tmp_path, {"HF_TOKEN": "other"}, dotenv)
    assert settings.model == "${HF_TOKEN}/$HF_TOKEN"
    assert settings.output == Path("a $HOME b")
    with pytest.raises(UsageError) as caught:
        _load(tmp_path, {}, "HF_TOKEN=hf_secret\nCSM_REPL_TOP_K=${HF_TOKEN}\n")
    assert "hf_secret" not in str(caught.value)


def test_what_a_dotenv_changes_is_said_without_its_values(tmp_path: Path) -> None:
    settings = _load(
        tmp_path, {"CSM_REPL_SEED": "3"}, "HF_TOKEN=hf_x\nCSM_REPL_SEED=1\nCSM_REPL_TOP_K=5\nOTHER=1\n"
    )
    assert settings.notices == ("The .env file of this folder sets top-k and hf-token.",)
    assert _load(tmp_path, {"CSM_REPL_SEED": "3"}).notices == ()


@pytest.mark.parametrize(
    ("env", "dotenv", "told"),
    [
        (
            {"CSM_REPL_TEMPRATURE": "1"},
            "",
            "the environment, sets nothing. Did you mean CSM_REPL_TEMPERATURE?",
        ),
        ({}, "CSM_REPL_TOPK=1", "the .env file, sets nothing. Did you mean CSM_REPL_TOP_K?"),
        ({"csm_repl_top_k": "1"}, "", "Did you mean CSM_REPL_TOP_K?"),
        ({"CSM_REPL_FORCE": "1"}, "", "Use --force."),
        ({"CSM_REPL_Q": "1"}, "", "--help' lists the settings."),
        ({}, "what is this\nCSM_REPL_SEED=1\n", "Line 1 of the .env file: no NAME=value; left out."),
    ],
)
def test_names_and_lines_that_set_nothing_are_told(
    tmp_path: Path, env: dict[str, str], dotenv: str, told: str
) -> None:
    assert told in " ".join(_load(tmp_path, env, dotenv).notices)


def test_odd_dotenvs_are_survived_or_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.mkdir()
    assert load_settings({}, environ={}, dotenv=path).origin("seed") == "default"
    path.rmdir()
    os.mkfifo(path)
    assert load_settings({}, environ={}, dotenv=path).origin("seed") == "default"
    path.unlink()
    path.write_bytes("CSM_REPL_SEED=4\n".encode("utf-16"))
    assert load_settings({}, environ={}, dotenv=path).seed == 4
    for content in (b"CSM_REPL_SEED=\xff\xfe\n", b"#" * (2**20 + 1)):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"\.env is"):
            load_settings({}, environ={}, dotenv=path)
