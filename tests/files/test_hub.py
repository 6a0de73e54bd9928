"""Finding and downloading models, against a hub on this machine (tests/fake_hub.py)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from csm_repl.codec import load_codec
from csm_repl.engine import Engine, build_prompt
from csm_repl.errors import CheckpointError, ExitCode, HubError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.companions import MIMI_FILE, MIMI_REPO, TOKENIZER_MIRROR
from csm_repl.files.hub import DEFAULT_MODEL, ModelFiles, find_model, hub_login
from csm_repl.files.text_front import open_front
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.convert import load_csm
from tests.support.fake_hub import TOKEN, FakeHub
from tests.support.fronts import write_front
from tests.support.layout_writer import (
    read_original,
    transformers_config,
    transformers_state,
    write_config,
    write_shards,
)

MODEL = "someone/tiny-csm"
COMPANIONS = ("tokenizer.json", "mimi.safetensors", "codec.json")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub-cache" / "hub"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.use(monkeypatch, cache=cache)
        yield hub


@pytest.fixture
def published(hub: FakeHub, micro_checkpoint: Path) -> FakeHub:
    """A model in one repository; codec and tokenizer in Kyutai's and the mirror's, as on the real hub."""
    hub.add_folder(MODEL, micro_checkpoint, without=COMPANIONS)
    add_companions(hub, micro_checkpoint)
    return hub


def add_companions(hub: FakeHub, folder: Path) -> None:
    hub.add(MIMI_REPO, {MIMI_FILE: (folder / "mimi.safetensors").read_bytes()})
    hub.add(TOKENIZER_MIRROR, {"tokenizer.json": (folder / "tokenizer.json").read_bytes()})


def hub_error(*args: object, **kwargs: object) -> HubError:
    with pytest.raises(HubError) as caught:
        find_model(*args, **kwargs)  # type: ignore[arg-type]
    error = caught.value
    assert error.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert error.remedy
    assert "\n" not in str(error), "the message must be one paragraph"
    return error


def speak(files: ModelFiles, codec_config: Path | None) -> list[int]:
    """Text to samples with everything that was found."""
    cpu = torch.device("cpu")
    model = load_csm(find_checkpoint(files.folder), device=cpu, dtype=torch.float32)
    tokenizer = Tokenizer(files.tokenizer, vocab_size=model.config.text_vocab_size)
    codec = load_codec(files.codec, codec_config, n_codebooks=model.config.n_codebooks, device=cpu)
    rows = build_prompt([], tokenizer.encode("[0]Hi."), model.config.n_codebooks)
    frames = list(Engine(model).generate(rows, seed=1, max_frames=3))
    assert codec.decode(torch.stack(frames, 1)).isfinite().all()
    return [int(code) for frame in frames for code in frame]


# What is found


def test_a_download_from_three_repositories_speaks(published: FakeHub, micro_checkpoint: Path) -> None:
    files = find_model(MODEL)
    local = find_model(str(micro_checkpoint))
    description = micro_checkpoint / "codec.json"
    assert speak(files, description) == speak(local, description)


def test_a_repository_that_has_everything_needs_no_other(hub: FakeHub, micro_checkpoint: Path) -> None:
    hub.add_folder(MODEL, micro_checkpoint)
    files = find_model(MODEL)
    assert {request.repo for request in hub.log} == {MODEL}
    assert speak(files, files.codec_config)


def test_only_what_is_needed_is_downloaded(published: FakeHub) -> None:
    repo = published.repos[MODEL]
    repo.files |= {"README.md": b"# hi", "ckpt.pt": b"x" * 1000, "prompts/a.wav": b"RIFF"}
    find_model(MODEL)
    assert sorted(published.downloads()) == sorted(
        [
            f"{MODEL}/config.json",
            f"{MODEL}/model.safetensors",
            f"{MIMI_REPO}/{MIMI_FILE}",
            f"{TOKENIZER_MIRROR}/tokenizer.json",
        ]
    )


def test_the_models_own_tokenizer_is_preferred_with_its_config(
    published: FakeHub, micro_checkpoint: Path
) -> None:
    published.repos[MODEL].files |= {
        "tokenizer.json": (micro_checkpoint / "tokenizer.json").read_bytes(),
        "tokenizer_config.json": b"{}",
    }
    files = find_model(MODEL)
    assert files.tokenizer.parent == files.folder
    assert (files.folder / "tokenizer_config.json").is_file()
    assert TOKENIZER_MIRROR not in {request.repo for request in published.log}


def test_the_second_call_asks_the_hub_nothing(published: FakeHub) -> None:
    first = find_model(MODEL)
    published.log.clear()
    assert find_model(MODEL) == first
    assert published.log == []


@pytest.mark.parametrize("offline", [True, False])
def test_a_cached_model_is_found_without_a_network(published: FakeHub, offline: bool) -> None:
    first = find_model(MODEL)
    published.stop()
    assert find_model(MODEL, offline=offline) == first


def test_an_unfinished_download_goes_on_with_what_is_missing(published: FakeHub) -> None:
    files = find_model(MODEL)
    weights = files.folder / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    published.log.clear()
    assert find_model(MODEL) == files
    assert published.downloads() == [f"{MODEL}/model.safetensors"]


def test_the_commit_is_the_revision(published: FakeHub) -> None:
    assert find_model(MODEL).revision == published.repos[MODEL].commit


def test_a_branch_can_be_asked_for(published: FakeHub) -> None:
    published.repos[MODEL].branches.add("experiment")
    assert find_model(MODEL, revision="experiment").revision == published.repos[MODEL].commit


def test_a_commit_can_be_asked_for_and_is_found_again(published: FakeHub) -> None:
    commit = published.repos[MODEL].commit
    first = find_model(MODEL, revision=commit)
    published.log.clear()
    assert find_model(MODEL, revision=commit) == first
    assert published.log == []


@pytest.fixture
def with_front(published: FakeHub, tmp_path: Path) -> FakeHub:
    """The model with a text front, beside files that look like its own."""
    folder = tmp_path / "front"
    folder.mkdir()
    write_front(folder)
    published.repos[MODEL].files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    published.repos[MODEL].files["old.txt.gz"] = b"x"
    return published


def test_the_files_of_a_text_front_are_those_that_it_names(with_front: FakeHub) -> None:
    files = find_model(MODEL)
    assert open_front(files.folder) is not None
    assert f"{MODEL}/old.txt.gz" not in with_front.downloads()
    with_front.log.clear()
    assert find_model(MODEL) == files
    assert with_front.log == []


def test_a_lost_file_of_a_text_front_is_downloaded_again(with_front: FakeHub) -> None:
    files = find_model(MODEL)
    (files.folder / "letters.txt.gz").unlink()
    assert open_front(find_model(MODEL).folder) is not None


def test_a_text_front_that_the_repository_lacks_stops_before_any_weights(with_front: FakeHub) -> None:
    del with_front.repos[MODEL].files["letters.txt.gz"]
    hub_error(MODEL)
    assert f"{MODEL}/model.safetensors" not in with_front.downloads()


def test_what_takes_time_is_said(published: FakeHub) -> None:
    said: list[str] = []
    find_model(MODEL, say=said.append)
    assert f"Downloading model.safetensors of {MODEL}." in said
    assert f"Downloading {MIMI_FILE} of {MIMI_REPO}." in said


# transformers' layout


@pytest.fixture
def sharded(hub: FakeHub, golden_folder: Path, micro_checkpoint: Path, tmp_path: Path) -> FakeHub:
    """A repository that has transformers' shards alone."""
    folder = tmp_path / "sharded"
    config, state = read_original(golden_folder)
    write_config(folder, transformers_config(config))
    write_shards(folder, transformers_state(state, config), stem="model")
    hub.add_folder(MODEL, folder)
    add_companions(hub, micro_checkpoint)
    return hub


def test_shards_are_downloaded_and_load(sharded: FakeHub) -> None:
    files = find_model(MODEL)
    model = load_csm(find_checkpoint(files.folder), device=torch.device("cpu"), dtype=torch.float32)
    assert model.config.backbone.n_layers == 3


def test_cached_shards_need_no_network(sharded: FakeHub) -> None:
    find_model(MODEL)
    sharded.log.clear()
    find_model(MODEL)
    assert sharded.log == []


def test_a_lost_shard_is_downloaded_again(sharded: FakeHub) -> None:
    shard = find_model(MODEL).folder / "model-00002-of-00003.safetensors"
    shard.resolve().unlink()
    shard.unlink()
    sharded.log.clear()
    find_model(MODEL)
    assert shard.exists()
    assert sharded.downloads() == [f"{MODEL}/{shard.name}"]


def test_a_shard_that_the_repository_lacks_stops_before_any_weights(sharded: FakeHub) -> None:
    del sharded.repos[MODEL].files["model-00002-of-00003.safetensors"]
    assert MODEL in hub_error(MODEL).cause
    assert not [name for name in sharded.downloads() if name.endswith(".safetensors")]


def test_the_hubs_own_arrangement_downloads_the_original_file_alone(
    sharded: FakeHub, golden_folder: Path
) -> None:
    """sesame/csm-1b: a config with the keys of both layouts, both layouts' weights."""
    repo = sharded.repos[MODEL]
    original = json.loads((golden_folder / "config.json").read_text())
    both = {
        **transformers_config(original),
        **original,
        "transformers_weights": "model.safetensors.index.json",
    }
    repo.files |= {
        "config.json": json.dumps(both).encode(),
        "model.safetensors": (golden_folder / "model.safetensors").read_bytes(),
    }
    find_model(MODEL)
    assert [name for name in sharded.downloads() if MODEL in name and "safetensors" in name] == [
        f"{MODEL}/model.safetensors"
    ]


# What is refused, before the first byte


@pytest.mark.parametrize("repo", [MODEL, MIMI_REPO, TOKENIZER_MIRROR])
def test_a_gated_repository_is_named_with_url_and_command(published: FakeHub, repo: str) -> None:
    published.repos[repo].gated = True
    error = hub_error(MODEL)
    assert f"{repo} is gated" in error.cause
    assert f"https://huggingface.co/{repo}" in error.remedy
    assert "hf auth login" in error.remedy


def test_the_gated_model_is_named_with_its_ungated_copy(published: FakeHub) -> None:
    published.repos[DEFAULT_MODEL] = published.repos[MODEL]
    published.repos[DEFAULT_MODEL].gated = True
    assert "--model eustlb/csm-1b" in hub_error(DEFAULT_MODEL).remedy


@pytest.mark.parametrize("repo", [MODEL, MIMI_REPO, TOKENIZER_MIRROR])
def test_nothing_is_downloaded_when_one_repository_is_gated(published: FakeHub, repo: str) -> None:
    published.repos[repo].gated = True
    hub_error(MODEL)
    # The config says whether the codec's repository is needed at all.
    assert set(published.downloads()) <= {f"{MODEL}/config.json"}


@pytest.mark.parametrize("repo", [MIMI_REPO, TOKENIZER_MIRROR])
def test_nothing_is_downloaded_when_a_companion_is_gone(published: FakeHub, repo: str) -> None:
    del published.repos[repo]
    assert f"{repo} was not found" in hub_error(MODEL).cause
    assert set(published.downloads()) <= {f"{MODEL}/config.json"}


@pytest.mark.parametrize("repo", [MODEL, MIMI_REPO])
def test_nothing_of_shards_is_downloaded_when_one_repository_is_gated(sharded: FakeHub, repo: str) -> None:
    sharded.repos[repo].gated = True
    hub_error(MODEL)
    assert all(name.endswith(".json") for name in sharded.downloads())


def test_a_folder_with_an_unreachable_codec_downloads_nothing(
    published: FakeHub, micro_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(micro_checkpoint, folder)
    for name in COMPANIONS:
        (folder / name).unlink()
    published.repos[MIMI_REPO].gated = True
    assert MIMI_REPO in hub_error(str(folder)).cause
    assert published.downloads() == []


def test_a_token_opens_a_gated_repository(published: FakeHub) -> None:
    published.repos[MODEL].gated = True
    assert find_model(MODEL, token=TOKEN).name == MODEL


def test_the_token_is_sent_with_every_request(published: FakeHub) -> None:
    find_model(MODEL, token=TOKEN)
    assert {request.token for request in published.log} == {TOKEN}


def test_a_stored_login_is_used(published: FakeHub, cache: Path) -> None:
    published.repos[MODEL].gated = True
    cache.parent.mkdir(parents=True)
    (cache.parent / "token").write_text(TOKEN)
    assert find_model(MODEL).name == MODEL


def test_without_a_login_no_token_is_sent(published: FakeHub) -> None:
    find_model(MODEL)
    assert {request.token for request in published.log} == {None}


def test_a_token_that_the_hub_refuses_is_named(published: FakeHub) -> None:
    error = hub_error(MODEL, token="hf_expired")
    assert "does not accept the token" in error.cause
    assert "hf auth login" in error.remedy


def test_a_private_repository_is_told_like_one_that_is_not_there(published: FakeHub) -> None:
    published.repos[MODEL].private = True
    error = hub_error(MODEL)
    assert "was not found on the hub, or it is private" in error.cause
    assert "hf auth login" in error.remedy


def test_a_repository_that_is_not_there_is_named(hub: FakeHub) -> None:
    error = hub_error("no-one/nothing")
    assert "no-one/nothing was not found" in error.cause
    assert "https://huggingface.co/no-one/nothing" in error.remedy


def test_a_revision_that_is_not_there_is_named(published: FakeHub) -> None:
    error = hub_error(MODEL, revision="v9")
    assert "has no revision 'v9'" in error.cause
    assert "--revision" in error.remedy


def test_a_repository_without_a_config_is_no_model(hub: FakeHub) -> None:
    hub.add(MODEL, {"README.md": b"# hi"})
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        find_model(MODEL)


def test_a_repository_without_weights_is_no_model(published: FakeHub) -> None:
    del published.repos[MODEL].files["model.safetensors"]
    with pytest.raises(CheckpointError, match="no weights"):
        find_model(MODEL)


def test_a_repository_that_is_another_model_downloads_no_weights(published: FakeHub) -> None:
    published.repos[MODEL].files["config.json"] = b'{"model_type": "llama"}'
    with pytest.raises(CheckpointError):
        find_model(MODEL)
    assert published.downloads() == [f"{MODEL}/config.json"]


def test_a_codec_json_without_its_weights_downloads_nothing(
    published: FakeHub, micro_checkpoint: Path
) -> None:
    """Kyutai's weights would not fit it."""
    published.repos[MODEL].files["codec.json"] = (micro_checkpoint / "codec.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"codec\.json but none of mimi\.safetensors"):
        find_model(MODEL)
    assert published.downloads() == []


# No network, no room


def test_offline_without_a_cache_says_how_to_get_the_model(hub: FakeHub) -> None:
    error = hub_error(MODEL, offline=True)
    assert "offline" in error.cause
    assert f"hf download {MODEL}" in error.remedy
    assert hub.log == []


def test_the_hubs_own_variable_means_offline_too(published: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in hub_error(MODEL).cause
    assert published.log == []


def test_offline_with_half_a_model_says_so(published: FakeHub) -> None:
    (find_model(MODEL).folder / "model.safetensors").unlink()
    assert "not completely in the cache" in hub_error(MODEL, offline=True).cause


def test_offline_without_the_codec_names_the_codecs_repository(published: FakeHub) -> None:
    find_model(MODEL).codec.unlink()
    assert MIMI_REPO in str(hub_error(MODEL, offline=True))


def test_an_unreachable_hub_is_named(published: FakeHub) -> None:
    published.stop()
    error = hub_error(MODEL)
    assert "cannot be reached" in error.cause
    assert "network" in error.remedy


@pytest.mark.parametrize("fault", ["refuses", "hangs", "has no address"])
def test_one_quick_check_tells_that_there_is_no_hub(
    published: FakeHub, fault: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is tried again, and the library's own reports of every attempt are not shown."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    monkeypatch.setattr("csm_repl.files.hub._QUICK_S", (0.3, 0.3))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = "127.0.0.1:1" if fault == "refuses" else f"127.0.0.1:{silent.getsockname()[1]}"
        if fault == "has no address":
            place = "hub.invalid"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://{place}")
        error = hub_error(MODEL)
    assert "cannot be reached" in error.cause
    assert "Errno" not in str(error)
    assert waits == []
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_goes_away_before_the_download_is_unreachable(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub then says that it has no such entry in its cache."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        published.stop()

    monkeypatch.setattr("time.sleep", lambda _: None)
    error = hub_error(MODEL, say=say)
    assert said == [f"Downloading config.json of {MODEL}."]
    assert "cannot be reached" in error.cause


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_hub_in_trouble_is_named(published: FakeHub, status: int) -> None:
    published.fail_with = status
    assert "The hub answered with an error" in hub_error(MODEL).cause


def test_a_download_that_breaks_off_is_no_matter_of_disk_space(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    published.drop_after = 100
    error = hub_error(MODEL)
    assert "network" in error.remedy
    assert "disk" not in str(error)


def test_a_file_that_came_too_short_is_no_matter_of_disk_space(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> None:
        raise OSError("Consistency check failed: file should be of size 9 but has size 8 (config.json).")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", short)
    error = hub_error(MODEL)
    assert "network" in error.remedy
    assert "disk" not in str(error)


def test_a_download_that_broke_off_goes_on_later(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch, micro_checkpoint: Path
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    published.drop_after = 100
    hub_error(MODEL)
    published.drop_after = None
    files = find_model(MODEL)
    weights = (files.folder / "model.safetensors").read_bytes()
    assert weights == (micro_checkpoint / "model.safetensors").read_bytes()


def test_a_disk_that_is_too_small_stops_before_any_weights(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    error = hub_error(MODEL)
    assert "GB left" in error.cause
    assert "HF_HOME" in error.remedy
    assert not [name for name in published.downloads() if name.endswith(".safetensors")]


def test_the_codecs_size_counts_too(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch, micro_checkpoint: Path
) -> None:
    room = (micro_checkpoint / "model.safetensors").stat().st_size + 100_000
    assert room < (micro_checkpoint / "mimi.safetensors").stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, room))
    assert "left" in hub_error(MODEL).cause
    assert not [name for name in published.downloads() if name.endswith(".safetensors")]


def test_a_folder_that_needs_the_codec_checks_the_room(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch, micro_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(micro_checkpoint, folder)
    for name in COMPANIONS:
        (folder / name).unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    assert "left" in hub_error(str(folder)).cause


def test_what_is_cached_needs_no_room(published: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    find_model(MODEL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    assert find_model(MODEL).name == MODEL


def test_a_disk_that_fills_while_downloading_is_named(
    published: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    error = hub_error(MODEL)
    assert "No space left on device" in error.cause
    assert "disk space" in error.remedy


# Folders


def test_a_complete_folder_asks_the_hub_nothing(hub: FakeHub, micro_checkpoint: Path) -> None:
    files = find_model(str(micro_checkpoint))
    assert (files.folder, files.revision, hub.log) == (micro_checkpoint, None, [])
    assert files.codec_config == micro_checkpoint / "codec.json"


def test_a_folder_without_companions_takes_the_published_ones(
    published: FakeHub, micro_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(micro_checkpoint, folder)
    for name in COMPANIONS:
        (folder / name).unlink()
    files = find_model(str(folder))
    assert speak(files, micro_checkpoint / "codec.json")


def test_a_folder_with_a_codec_json_and_no_weights_for_it_is_refused(
    hub: FakeHub, micro_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(micro_checkpoint, folder)
    (folder / "mimi.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"codec\.json but none of mimi\.safetensors"):
        find_model(str(folder))


def test_a_folder_in_the_home_directory_can_be_written_with_a_tilde(
    hub: FakeHub, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(micro_checkpoint.parent))
    assert find_model(f"~/{micro_checkpoint.name}").folder == micro_checkpoint


@pytest.mark.parametrize("name", ["csm", "./nowhere/model", "/nowhere/model", "a/b/c", "~/nowhere", "", "/"])
def test_what_is_neither_a_folder_nor_a_name_is_refused_without_a_request(hub: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError):
        find_model(name)
    assert hub.log == []


def test_a_file_is_no_model(hub: FakeHub, micro_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor"):
        find_model(str(micro_checkpoint / "model.safetensors"))


@pytest.mark.parametrize("name", ["a b/c", "owner/na--me", "owner/.git"])
def test_an_impossible_name_is_a_checkpoint_error(hub: FakeHub, name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor"):
        find_model(name)


def test_the_login_is_told_without_a_request(hub: FakeHub, cache: Path) -> None:
    assert hub_login() == "not logged in"
    cache.parent.mkdir(parents=True)
    (cache.parent / "token").write_text(TOKEN)
    assert "logged in" in hub_login()
    assert "HF_TOKEN" in hub_login("hf_given")
    assert hub.log == []


# The address comes from the environment: nothing above depends on patched constants.


def test_another_process_downloads_through_hf_endpoint(published: FakeHub, tmp_path: Path) -> None:
    script = (
        "import sys; from csm_repl.files.hub import find_model;"
        f"print(find_model({MODEL!r}, token={TOKEN!r}).folder)"
    )
    environment = {**os.environ, **published.environment(tmp_path / "hf-home")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "hf-home")
    assert f"{MODEL}/model.safetensors" in published.downloads()
