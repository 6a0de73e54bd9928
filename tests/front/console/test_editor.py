from __future__ import annotations

from pathlib import Path

import pytest

from csm_repl.front.console.editor import edited


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An editor that writes more lines, with a space in its path and an argument."""
    script = tmp_path / "an editor"
    script.write_text('#!/bin/sh\n[ "$1" = -x ] && printf "second\\r\\nth\\377ird\\n" >> "$2"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    return script


@pytest.mark.parametrize("variable", ["VISUAL", "EDITOR"])
def test_the_users_editor_writes_the_line(
    editor: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"'{editor}' -x")
    assert edited("first \udcff") == "first ?second\nth\ufffdird"


def test_one_that_does_not_exist_gives_way_to_the_usual_ones(
    editor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor 'unclosed")
    monkeypatch.setenv("EDITOR", "no-such-editor")
    assert edited("first") is None
    (editor.parent / "nano").write_text('#!/bin/sh\nprintf nano > "$1"\n')
    (editor.parent / "nano").chmod(0o755)
    assert edited("first") == "nano"


def test_one_that_fails_changes_nothing(editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", f"'{editor}'")
    assert edited("first") is None
