"""What all tests share: an environment of their own and tiny models.

The environment is set before anything is imported, because huggingface_hub and platformdirs read theirs
once. No test can reach the real hub: its address is a port where nobody listens.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from csm_repl.model.csm import CSM

_SANDBOX = Path(tempfile.mkdtemp(prefix="csm-repl-tests-"))
_OURS = ("CSM_REPL_", "HF_", "HUGGING_FACE_", "XDG_")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


def _isolate() -> None:
    for name in list(os.environ):
        if name.startswith(_OURS) or name.lower() in _PROXIES or name in {"NO_COLOR", "FORCE_COLOR"}:
            del os.environ[name]
    os.environ["HOME"] = os.environ["USERPROFILE"] = str(_SANDBOX)
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        os.environ[f"XDG_{kind}_HOME"] = str(_SANDBOX / kind.lower())
    os.environ["HF_HOME"] = str(_SANDBOX / "huggingface")
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    # Tiny models gain nothing from threads, and lose much where other processes want the cores too. The
    # programs that tests start inherit it.
    os.environ["OMP_NUM_THREADS"] = "1"


_isolate()
settings.register_profile("csm", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "csm")

MICRO_FLAVORS: dict[str, Any] = {
    "backbone_flavor": {
        "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32, "max_seq_len": 96,
        "intermediate_dim": 48,
    },
    "decoder_flavor": {
        "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 16, "max_seq_len": 96,
        "intermediate_dim": 32,
    },
    "text_vocab_size": 300,
    "audio_vocab_size": 2051,
    "audio_num_codebooks": 4,
}  # fmt: skip
"""Four codebooks and 96 positions: a take costs a few milliseconds."""


def pytest_sessionfinish() -> None:
    shutil.rmtree(_SANDBOX, ignore_errors=True)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return Path(__file__).parent / "golden" / "csm-tiny"


@pytest.fixture(scope="session")
def golden_cases(golden_folder: Path) -> list[dict[str, Any]]:
    return json.loads((golden_folder / "cases.json").read_text())


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in the published layout with a tiny codec; takes end after about ten frames.

    Read-only: a test that changes files copies it.
    """
    from tools.random_checkpoint import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("models") / "csm-random-tiny", ends=True)


@pytest.fixture(scope="session")
def micro_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still smaller model folder (see MICRO_FLAVORS); its takes do not end by themselves. Read-only."""
    from tools.random_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("models") / "csm-random-micro"
    return write_checkpoint(folder, flavors=MICRO_FLAVORS, ends=False)


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path) -> CSM:
    return _load(tiny_checkpoint)


@pytest.fixture(scope="session", params=["native", "pytorch"])
def micro_model(micro_checkpoint: Path, request: pytest.FixtureRequest) -> CSM:
    return _load(micro_checkpoint, native=request.param == "native")


@pytest.fixture(scope="session", params=["native", "pytorch"])
def golden_model(golden_folder: Path, request: pytest.FixtureRequest) -> CSM:
    """With the native kernels and without: both must give the golden tokens."""
    return _load(golden_folder, native=request.param == "native")


def _load(folder: Path, *, native: bool = True) -> CSM:
    import torch

    from csm_repl.files.checkpoint import find_checkpoint
    from csm_repl.model.weights.convert import load_csm

    return load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=torch.float32, native=native)
