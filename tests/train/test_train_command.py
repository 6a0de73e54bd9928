"""`csm-repl train` and `csm-repl merge` as users run them, with a tiny random model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csm_repl.cli import main
from csm_repl.train.report.metrics import read_metrics
from tests.support.program import Programs, words
from tests.support.speech import read_pcm, write_clip

pytest.importorskip("torchtune")
pytest.importorskip("matplotlib")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips of two speakers."""
    for number in range(4):
        write_clip(
            tmp_path / "clips" / str(number % 2) / f"{number}.wav", f"Clip {number}.", 0.8 + 0.2 * number
        )
    return tmp_path / "clips"


def command(clips: Path, model: Path, *more: str) -> list[str]:
    words = ["train", str(clips), "--model", str(model), "--cache", str(clips.parent / "cache")]
    return [*words, "-o", str(clips.parent / "out"), "--device", "cpu", "--whisper-model", "off", *more]


def run(words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "csm_repl", *words],
        cwd=cwd, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def steps_of(out: Path) -> list[int]:
    return [int(row["step"]) for row in read_metrics(out / "metrics.csv") if "loss" in row]


def test_five_steps_of_lora_from_a_folder_give_models_that_speak(
    clips: Path,
    micro_checkpoint: Path,
    tmp_path: Path,
    programs: Programs,
    capfd: pytest.CaptureFixture[str],
) -> None:
    flags = ("--max-steps", "5", "--log-every", "1", "--sample-every", "2", "--sample-text", "[1]Hi.")
    (clips / "bad.wav").write_bytes(b"")
    code, shown = main(command(clips, micro_checkpoint, *flags)), capfd.readouterr()
    assert code == 0, shown.err
    out = tmp_path / "out"
    results = ("adapter", "adapter-peft", "model", "model-transformers")
    assert shown.out.split() == [str(out / name) for name in results]
    assert steps_of(out) == [1, 2, 3, 4, 5]
    assert (out / "dashboard.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in out.iterdir()} == {
        "options.json", "speakers.json",
        "metrics.csv", "dashboard.png", "train.log", "state.pt", "best", "adapter", "adapter-peft", "model",
        "model-transformers", "samples",
    }  # fmt: skip
    assert [path.name for path in sorted((out / "samples").iterdir())] == [
        "step-000002-1.wav",
        "step-000004-1.wav",
    ]
    assert len(read_pcm(out / "samples" / "step-000002-1.wav")) > 0
    assert "step 5/5" in shown.err
    assert "Traceback" not in shown.err
    log = (out / "train.log").read_text()
    for told in ("left out: bad.wav: The file is empty", "Training: 3 items", "step 5/5", "finished"):
        assert told in log
    for folder in ("model", "model-transformers"):
        spoken = programs.run(
            words(out / folder, "-q", "--max-seconds", "0.4"), cwd=tmp_path, input=b"Hello.\n"
        )
        assert spoken.returncode == 0, spoken.stderr
        assert (tmp_path / spoken.stdout.decode().strip()).is_file()


def test_the_same_command_again_goes_on_and_has_nothing_to_do(
    clips: Path, micro_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = command(clips, micro_checkpoint, "--max-steps", "2", "--json")
    assert main(words) == 0
    capfd.readouterr()
    assert main(words) == 0
    shown = capfd.readouterr()
    assert "Going on with the run" in shown.err
    assert "step_done" not in shown.out
    assert steps_of(tmp_path / "out") == [1, 2]
    assert main([*words, "--lr", "0.1"]) == 2
    assert "--lr was not given and is 0.1" in capfd.readouterr().err
    assert main([*words, "--lr", "0.1", "--no-resume"]) == 0
    assert (tmp_path / "out.old-1" / "state.pt").is_file()


@pytest.mark.slow(reason="trains three times")
def test_a_stopped_run_goes_on_to_the_same_end_as_one_that_was_not(
    clips: Path, micro_checkpoint: Path, tmp_path: Path
) -> None:
    flags = ("--max-steps", "60", "--log-every", "1", "--full", "--ema", "0.9", "--eval-every", "7")
    words = command(clips, micro_checkpoint, *flags)
    process = subprocess.Popen(
        [sys.executable, "-m", "csm_repl", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 5/"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=120) == 130
    assert "is saved. The same command goes on from there." in rest
    out = tmp_path / "out"
    stopped_at = steps_of(out)[-1]
    assert 5 <= stopped_at < 60
    assert not (out / "model").exists()
    again = run(words, tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"step {stopped_at + 1}/60" in again.stderr
    assert steps_of(out) == list(range(1, 61))
    shutil.move(out, tmp_path / "stopped")
    whole = run(words, tmp_path)
    assert whole.returncode == 0, whole.stderr
    for name in ("model/model.safetensors", "best/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    figures = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_metrics(path)]
        for path in (out / "metrics.csv", tmp_path / "stopped" / "metrics.csv")
    ]
    assert figures[0] == figures[1]


@pytest.mark.slow(reason="starts the program twice")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_term_and_hup_save_the_state_as_ctrl_c_does(
    name: str, code: int, clips: Path, micro_checkpoint: Path, tmp_path: Path
) -> None:
    words = command(clips, micro_checkpoint, "--max-steps", "60", "--log-every", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "csm_repl", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3/"):
            process.send_signal(getattr(signal, name))
            break
    rest = process.stderr.read()
    assert process.wait(timeout=120) == code
    assert "is saved. The same command goes on from there." in rest
    stopped_at = steps_of(tmp_path / "out")[-1]
    again = run(words, tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"step {stopped_at + 1}/60" in again.stderr
    assert steps_of(tmp_path / "out") == list(range(1, 61))


def test_speakers_keep_their_numbers_when_a_model_is_trained_further(
    clips: Path, micro_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (clips / "0").rename(clips / "ben")
    (clips / "1").rename(clips / "carl")
    assert main(command(clips, micro_checkpoint, "--max-steps", "1")) == 0
    assert "  ben   ->  speaker 0  (2 clips)\n  carl  ->  speaker 1  (2 clips)\n" in capfd.readouterr().err
    model = tmp_path / "out" / "model"
    for folder in (tmp_path / "out", model):
        assert json.loads((folder / "speakers.json").read_text()) == {"ben": 0, "carl": 1}
    write_clip(clips / "anna" / "a.wav", "Anna.", 0.9)
    shutil.rmtree(clips / "ben")
    more = ("-o", str(tmp_path / "later"), "--max-steps", "1")
    assert main(command(clips, model, *more)) == 0
    assert "  carl  ->  speaker 1  (2 clips)\n  anna  ->  speaker 2  (1 clip)\n" in capfd.readouterr().err
    assert json.loads((tmp_path / "later" / "model" / "speakers.json").read_text()) == {
        "ben": 0, "carl": 1, "anna": 2,
    }  # fmt: skip


def test_a_dry_run_says_what_would_be_trained_on_and_makes_no_folder(
    clips: Path, micro_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (clips / "bad.wav").write_bytes(b"")
    words = command(clips, micro_checkpoint, "--dry-run", "--turns", "2", "--held-out", "0.3")
    assert main(words) == 0
    shown = capfd.readouterr()
    assert "left out: bad.wav: The file is empty" in shown.err
    assert "Training: " in shown.err
    assert "Held out: " in shown.err
    assert shown.out == ""
    assert not (tmp_path / "out").exists()


def test_a_new_model_from_a_config_and_a_conversation(
    clips: Path, micro_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config"
    config.mkdir()
    for name in ("config.json", "tokenizer.json", "codec.json", "mimi.safetensors"):
        shutil.copy(micro_checkpoint / name, config / name)
    turns = [{"audio": f"{n % 2}/{n}.wav", "text": f"Clip {n}.", "speaker": n % 2} for n in range(3)]
    single = {"audio": "1/3.wav", "text": "Clip 3.", "speaker": 1}
    lines = [{"turns": turns}, single, {"turns": [single, turns[0]]}]
    (clips / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["train", str(clips / "data.jsonl"), "--from-scratch", str(config), "-o", str(tmp_path / "out")]
    words += ["--max-steps", "2", "--device", "cpu", "--cache", str(tmp_path / "cache"), "-q"]
    assert main(words) == 0
    assert capfd.readouterr().out.split()[0] == str(tmp_path / "out" / "model")
    assert (tmp_path / "out" / "model" / "codec.json").is_file()
    assert main(["doctor", "--model", str(tmp_path / "out" / "model")]) == 0


def test_merge_gives_the_model_that_training_gave(
    clips: Path, micro_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    assert main(command(clips, micro_checkpoint, "--max-steps", "2", "--lr", "0.01", "-q")) == 0
    adapter = str(tmp_path / "out" / "adapter")
    wanted = load_file(tmp_path / "out" / "model" / "model.safetensors")
    base = load_file(micro_checkpoint / "model.safetensors")
    assert any(not torch.equal(base[name], wanted[name]) for name in base)
    # Without --model the base is the one that the adapter names.
    for number, more in enumerate(([], ["--model", str(micro_checkpoint)])):
        assert main(["merge", adapter, "-o", str(tmp_path / f"merged{number}"), *more]) == 0
        merged = load_file(tmp_path / f"merged{number}" / "model.safetensors")
        assert all(torch.equal(merged[name], wanted[name]) for name in wanted)
    words = ["merge", adapter, "-o", str(tmp_path / "t"), "--layout", "transformers", "--dtype", "float32"]
    assert main(words) == 0
    assert load_file(tmp_path / "t" / "model.safetensors")["lm_head.weight"].dtype == torch.float32
    capfd.readouterr()
    assert main(["merge", adapter, "-o", str(tmp_path / "out")]) == 2
    assert "not empty" in capfd.readouterr().err
    assert main(["merge", str(tmp_path), "-o", str(tmp_path / "new")]) == 3
    assert "holds no adapter" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (["train", "nowhere", "--model", "MODEL"], 2, "There is no nowhere"),
        (["train", "empty", "--model", "MODEL"], 2, "nothing to train on"),
        (["train", "clips", "--model", "./no-model"], 3, "./no-model"),
        (["train", "clips", "--from-scratch", "empty"], 3, "config.json"),
        (["train", "clips", "--model", "MODEL", "--device", "cuda:7"], 4, "cuda:7"),
        (["train", "clips", "--model", "MODEL", "--lora-targets", "everything"], 2, "everything"),
        (["train", "clips", "--model", "MODEL", "--loss-speakers", "7"], 2, "nothing to train on"),
        (["train", "clips", "--model", "MODEL", "-o", "clips/0/0.wav/x"], 1, "cannot be written"),
    ],
)
def test_what_cannot_work_is_one_paragraph_with_its_exit_code(
    words: list[str],
    code: int,
    shown: str,
    clips: Path,
    micro_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(clips.parent)
    (clips.parent / "empty").mkdir()
    words = [str(micro_checkpoint) if word == "MODEL" else word for word in words]
    assert main([*words, "--cache", str(clips.parent / "cache"), "-q"]) == code
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("csm-repl: ")]
    assert shown in line


def test_a_full_disk_ends_the_run_with_a_sentence_and_keeps_the_last_state(
    clips: Path,
    micro_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from csm_repl.train.report import metrics

    original = metrics.MetricsFile.add

    def full(self: metrics.MetricsFile, event: object) -> None:
        if getattr(event, "step", 0) == 4:
            raise metrics.output_error(self._path, OSError(28, os.strerror(28)))
        original(self, event)  # type: ignore[arg-type]

    monkeypatch.setattr(metrics.MetricsFile, "add", full)
    words = command(clips, micro_checkpoint, "--max-steps", "6", "--save-every", "2")
    assert main(words) == 1
    assert os.strerror(28) in capfd.readouterr().err
    assert os.strerror(28) in (tmp_path / "out" / "train.log").read_text()
    monkeypatch.undo()
    assert main(words) == 0
    assert steps_of(tmp_path / "out") == [1, 2, 3, 4, 5, 6]


def test_ctrl_c_while_clips_are_encoded_leaves_with_130_and_keeps_them(
    clips: Path,
    micro_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from csm_repl.codec.mimi import MimiCodec

    encode, calls = MimiCodec.encode, []

    def interrupted(self: MimiCodec, samples: torch.Tensor) -> torch.Tensor:
        calls.append(len(samples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, samples)

    monkeypatch.setattr(MimiCodec, "encode", interrupted)
    words = command(clips, micro_checkpoint, "--dry-run")
    assert main(words) == 130
    assert "What was encoded so far is kept." in capfd.readouterr().err
    assert main(words) == 0
    assert len(calls) == 5


@pytest.mark.slow(reason="loads all that training needs in a process of its own")
def test_the_start_of_a_training_loads_nothing_of_the_console(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom csm_repl.cli import main\n"
        "main(['train', 'nowhere'])\nprint('MODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    modules = set(done.stdout.partition("MODULES ")[2].split())
    assert "prompt_toolkit" not in modules
