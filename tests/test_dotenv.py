"""`.env`: what it may hold, what of it is said, and what is done about one that is no such file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from csm_repl.errors import UsageError
from csm_repl.settings import Settings, load_settings


def _load(folder: Path, dotenv: str | bytes = "", **options: object) -> tuple[Settings, list[str]]:
    file = folder / ".env"
    file.write_bytes(dotenv.encode() if isinstance(dotenv, str) else dotenv)
    said: list[str] = []
    flags = options.pop("flags", {})
    environ = options.pop("environ", {})
    return load_settings(flags, environ=environ, dotenv=file, say=said.append), said  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["${HF_TOKEN}", '"${HF_TOKEN}"', "$HF_TOKEN", "${HF_TOKEN:-x}", "$(id)"])
def test_nothing_in_a_value_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings, said = _load(tmp_path, f"HF_TOKEN=hf_other\nCSM_REPL_WHISPER_MODEL={written}\n")
    assert settings.whisper_model == written.strip('"')
    assert not [text for text in said if "hf_secret" in text or "hf_other" in text]


def test_what_the_file_changes_is_said_in_a_line_without_secrets(tmp_path: Path) -> None:
    settings, said = _load(
        tmp_path,
        "CSM_REPL_TOP_K=7\nCSM_REPL_SEED=3\nHF_TOKEN=hf_secret\nOTHER=1\n",
        flags={"seed": "5"},
    )
    assert settings.hf_token == "hf_secret"
    assert said == [f"{tmp_path}/.env sets top-k 7, hf-token (hidden)."]


def test_nothing_is_said_where_nothing_changes_or_nobody_wants_to_know(tmp_path: Path) -> None:
    assert _load(tmp_path, "OTHER=1\n")[1] == []
    assert _load(tmp_path, "CSM_REPL_TOP_K=7\nCSM_REPL_NO=1\nx y\n", flags={"quiet": True})[1] == []
    assert _load(tmp_path, "CSM_REPL_TOP_K=7\nCSM_REPL_QUIET=on\n")[1] == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CSM_REPL_TEMPERTURE", "Did you mean CSM_REPL_TEMPERATURE?"),
        ("CSM_REPL_HF_TOKEN", "Did you mean HF_TOKEN?"),
        ("CSM_REPL_OUT_FILE", "--out-file has no variable."),
        ("CSM_REPL_XQZW", "is no setting of csm-repl."),
    ],
)
def test_an_unknown_name_is_warned_about_once_with_the_nearest(tmp_path: Path, name: str, hint: str) -> None:
    for said in (_load(tmp_path, f"{name}=1\n")[1], _load(tmp_path, environ={name: "1"})[1]):
        [text] = said
        assert text.startswith(f"{name} in ")
        assert text.endswith(hint)


def test_lines_that_are_broken_are_named_by_number_and_the_others_count(tmp_path: Path) -> None:
    settings, said = _load(tmp_path, 'CSM_REPL_TOP_K=7\nA="x\n# fine\n\nhello there\nCSM_REPL_SEED=3\n')
    assert (settings.top_k, settings.seed) == (7, 3)
    assert f"Lines 2, 5 of {tmp_path}/.env are not NAME=value and are left out." in said


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    assert _load(tmp_path, "CSM_REPL_REFERENCES=Zoë\n".encode(encoding))[0].references == Path("Zoë")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"CSM_REPL_TOP_K=\xe9\n", "is not UTF-8"),
        ("CSM_REPL_TOP_K=1\n".encode("utf-16-le"), "is not a text file"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"A=1\n" * 2**19, "is larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_settings_file_is_a_usage_error(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=rf"\.env {words}"):
        _load(tmp_path, data)


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(UsageError, match=r"\.env is no file"):
        load_settings({}, environ={}, dotenv=tmp_path / ".env")


def test_a_folder_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert load_settings({}, environ={}, dotenv=tmp_path / ".env") == Settings()


def test_one_that_may_not_be_read_is_a_usage_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("A=1\n")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / ".env"))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"\.env cannot be read: Permission denied\.") as caught:
        load_settings({}, environ={}, dotenv=tmp_path / ".env")
    assert "Errno" not in str(caught.value)
