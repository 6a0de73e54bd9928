from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from csm_repl import __version__
from csm_repl.cli import main
from csm_repl.settings import specs
from tests.support.paths import ROOT


def _modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys\n"
        "from csm_repl.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('\\nMODULES', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.partition("\nMODULES ")[2].split())


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(flag: str) -> None:
    loaded = _modules_after(flag)
    assert "csm_repl.cli" in loaded
    assert not loaded & {"torch", "numpy", "rich", "prompt_toolkit", "huggingface_hub", "moshi", "whisper"}


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, csm_repl; dir(csm_repl); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for item in specs() for flag in item.flags)


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"csm-repl {__version__}"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--nonsense"], 2, "--help"),
        (["--top-k", "many", "-"], 2, "top-k must be a whole number"),
        (["--device", "gpu", "-"], 2, "cuda"),
        (["--raw", "-"], 2, "-o"),
        (["-q", "-v", "-"], 2, "exclude"),
        (["no-such-script.txt"], 2, "no-such-script.txt"),
        (["."], 2, "cannot be read"),
        (["--device", "cuda:7", "-"], 4, "cuda:7"),
        (["--model", "./nowhere", "-"], 3, "./nowhere"),
        (["--model", "a b/c", "-"], 3, "a b/c"),
        (["--model", "sesame/csm-1b", "--offline", "-"], 3, "offline"),
        (["-o", "no/such/folder/x.wav", "-"], 2, "folder"),
        (["-o", "x.doc", "-"], 2, ".wav"),
    ],
)
def test_a_start_that_cannot_work_is_one_paragraph_with_its_exit_code(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    assert main(arguments) == code
    shown = capfd.readouterr().err
    errors = [line for line in shown.splitlines() if line.startswith("csm-repl: ")]
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in shown


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_repl.errors import CheckpointError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    with pytest.raises(CheckpointError):
        main(["--debug", "--model", "./nowhere", "-"])


def test_the_log_file_has_the_traceback_in_any_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_repl.paths import log_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    main(["--model", "./nowhere-logged", "-"])
    assert "nowhere-logged" in log_file().read_text()
    assert "Traceback" in log_file().read_text()


def test_when_the_model_asked_for_cannot_be_reached_a_start_says_what_to_do_and_exits_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    assert main(["--model", "sesame/csm-1b", "-"]) == 3
    shown = capfd.readouterr().err
    assert "https://huggingface.co/sesame/csm-1b" in shown
    assert "hf auth login" in shown


def test_voices_lists_and_checks_the_folder_without_a_model(tmp_path: Path) -> None:
    from tests.support.speech import write_clip

    write_clip(tmp_path / "references" / "reference.wav", "Fine.")
    (tmp_path / "references" / "reference1.wav").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "csm_repl", "voices"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 clip of 1 speaker, 1 cannot be used." in done.stdout
    assert "Fine." in done.stdout
    assert "reference1.wav: The file is empty" in done.stdout
    assert not (tmp_path / "outputs").exists()


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def _drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["decoder.layers.0.attn.q_proj.weight"]
    save_file(state, folder / "model.safetensors")


def _wrong_shape(folder: Path) -> None:
    _edit_config(folder, text_vocab_size=301)


def _no_flavors(folder: Path) -> None:
    _edit_config(folder, backbone_flavor=None)


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _bad_codec(folder: Path) -> None:
    (folder / "mimi.safetensors").write_bytes(b"not a codec")


def _bad_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _edit_config(folder: Path, **changes: object) -> None:
    import json

    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate, "truncated"),
        (_drop_tensor, "decoder.layers.0.attn.q_proj.weight"),
        (_wrong_shape, "text_embeddings.weight is 300x32"),
        (_no_flavors, "backbone_flavor"),
        (_no_config, "no config.json"),
        (_bad_codec, "mimi.safetensors"),
        (_bad_tokenizer, "tokenizer.json"),
    ],
)
def test_a_damaged_model_is_one_paragraph_and_exit_code_3(
    damage: Callable[[Path], None],
    words: str,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    damage(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", (tmp_path / "empty").open("w+"))
    assert main(["--model", str(folder), "-"]) == 3
    [error] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("csm-repl: ")]
    assert words in error


WRONG = [
    (["--tmperature", "1", "talk.txt"], "Did you mean --temperature?"),
    (["--colour=never"], "Did you mean --color?"),
    (["--xyzzy"], "--help' lists the options"),
    (["voicse"], "Did you mean the command voices?"),
    (["--top-k", "many", "talk.txt"], "top-k must be a whole number"),
    (["nowhere.txt"], "The script nowhere.txt cannot be read: No such file or directory."),
    (["talk.txt", "nowhere.txt"], "The script nowhere.txt cannot be read"),
    (["."], "The script . cannot be read: Is a directory."),
    (["-", "-"], "stdin can be read only once"),
    (["doctor", "talk.txt"], "doctor takes no script"),
    (["--raw", "talk.txt"], "--raw works only with -o"),
    (["-o", "talk.doc", "talk.txt"], "talk.doc"),
    (["-o", "nowhere/talk.wav", "talk.txt"], "nowhere"),
    (["--output", "talk.txt", "talk.txt"], "talk.txt"),
    (["--batch", "2", "talk.txt"], "Add --independent"),
    (["train"], "arguments are required: DATA"),
    (["train", "nowhere"], "There is no nowhere. Give a folder of clips"),
    (["train", "clips", "--lerning-rate", "1"], "There is no option --lerning-rate."),
    (["merge", "folder", "-o", "out", "--layuot", "original"], "Did you mean --layout?"),
]


@pytest.mark.parametrize(
    ("words", "told"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_usage_error_says_what_was_meant_before_torch_is_loaded(
    words: list[str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "talk.txt").write_text("Hello.\n")
    code = (
        "import sys\n"
        "from csm_repl.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'rich', 'huggingface_hub', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=environ,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_names_on_the_command_line_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["\x1b]0;title\x07.txt"],
        ["--\x1b[2J"],
        ["--top-k", "\x1b[31m\x9b2J", "-"],
        ["train", "a", "--\x1b[2J"],
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert "\x1b" not in told
        assert "\x9b" not in told
        assert "x1b" in told


def test_bash_completes_commands_options_and_their_values(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    script = tmp_path / "completion.bash"
    with script.open("w") as file, contextlib.redirect_stdout(file):
        assert main(["--print-completion", "bash"]) == 0
    asked = tmp_path / "asked.bash"
    asked.write_text(
        f"source {script}\n"
        "ask() {\n"
        '  COMP_WORDS=(csm-repl "$@") COMP_CWORD=$# COMPREPLY=()\n'
        "  _shtab_csm_repl csm-repl \"${@: -1}\" ''\n"
        '  echo "${COMPREPLY[*]}"\n'
        "}\n"
        "ask --temp; ask --quantize i; ask tr; ask train --lora-r; ask merge --lay; ask --normalize ''\n"
    )
    done = subprocess.run([bash, str(asked)], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "--temperature", "int8 int4", "train", "--lora-rank", "--layout", "safe off",
    ]  # fmt: skip


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "powershell"])
def test_other_shells_get_their_completion_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    told = capsys.readouterr().out
    assert "temperature" in told
    assert "voices" in told


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--tmperature", "0.5"], "--temperature"),
        (["--tmperature=0.5", "x.txt"], "--temperature"),
        (["doctor", "--reference", "x"], "--references"),
        (["voices", "--jsn"], "--json"),
        (["train", "--lorra"], "--lora"),
        (["train", "data", "--log-evry", "1"], "--log-every"),
        (["merge", "--layuot", "original"], "--layout"),
        (["merge", "x", "-o", "y", "--layout", "orignal"], "original"),
        (["--dtype", "flaot32"], "float32"),
    ],
)
def test_a_mistyped_option_is_answered_with_the_nearest(
    words: list[str], meant: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert f"Did you mean {meant}?" in capfd.readouterr().err


@pytest.mark.parametrize("words", [["doctor"], ["train", "x"], ["-"]])
def test_a_current_folder_that_is_gone_is_said(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "csm_repl", *words],
        cwd=tmp_path / "gone", capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "The current folder is not there any more." in done.stderr


def test_the_systems_numbers_are_not_shown() -> None:
    from csm_repl.errors import UsageError, in_words

    raw = [
        str(OSError(28, "No space left on device", "x.wav")),
        "<urlopen error [Errno -2] Name or service not known>",
        "[WinError 5] Access is denied",
        "No such file or directory (os error 2)",
    ]
    assert [in_words(text) for text in raw] == [
        "No space left on device: 'x.wav'",
        "<urlopen error Name or service not known>",
        "Access is denied",
        "No such file or directory",
    ]
    assert "Errno" not in str(UsageError(raw[0], ""))


@pytest.mark.parametrize("command", ["voices", "doctor"])
def test_a_references_folder_that_may_not_be_read_is_not_called_empty(
    command: str,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "references"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    listed = Path.iterdir

    def refused(path: Path) -> object:
        if path.name == "references":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    main([command, "--model", str(tiny_checkpoint)])
    shown = capfd.readouterr().out
    assert "The references folder references cannot be read: Permission denied." in shown
    assert "No clips" not in shown
    assert "no usable clips" not in shown
