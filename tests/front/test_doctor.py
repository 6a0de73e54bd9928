"""What the doctor finds, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csm_repl.cli import main


def test_doctors_exit_code_says_what_a_run_would_meet(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--model", str(tiny_checkpoint)]) == 0
    assert "Everything is there" in capsys.readouterr().out
    assert main(["doctor", "--model", "sesame/csm-1b"]) == 3
    assert main(["doctor", "--model", str(tiny_checkpoint), "--device", "cuda:9"]) == 4
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--model", str(tiny_checkpoint), "--output", "file/x"]) == 2


@pytest.mark.parametrize(("asked", "used"), [("auto", "with int8 weights"), ("none", "cpu, bfloat16")])
def test_doctor_names_the_quantisation_that_a_run_would_use(
    asked: str, used: str, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["doctor", "--model", str(tiny_checkpoint), "--device", "cpu", "--quantize", asked])
    (line,) = [text for text in capsys.readouterr().out.splitlines() if text.startswith("ok  device")]
    assert used in line
    assert "auto" not in line


def test_doctor_names_versions_device_voices_and_settings_with_origin(
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CSM_REPL_TOP_K", "7")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    main(["doctor", "--model", str(tiny_checkpoint), "--json"])
    shown = capsys.readouterr().out
    findings = json.loads(shown)["findings"]
    subjects = {item["subject"] for item in findings}
    wanted = {
        "python",
        "packages",
        "device",
        "memory",
        "output",
        "hub",
        "model",
        "codec",
        "voices",
        "playback",
    }
    assert wanted <= subjects
    assert any("top-k = 7 (from $CSM_REPL_TOP_K)" in item["text"] for item in findings)
    assert "hf_secret" not in shown
