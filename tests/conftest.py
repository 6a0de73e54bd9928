"""What all tests share: an environment of their own and tiny models.

The environment is set before anything is imported, because huggingface_hub and platformdirs read theirs
once. No test can reach the real hub: its address is a port where nobody listens.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from csm_repl.model.csm import CSM
    from csm_repl.studio import Studio
    from tests.support.program import Programs
    from tests.support.studio import MakeStudio

_SANDBOX = Path(tempfile.mkdtemp(prefix="csm-repl-tests-"))
_OURS = ("CSM_REPL_", "HF_", "HUGGING_FACE_", "XDG_")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


def _isolate() -> None:
    # Under nohup every child would be started with it ignored, and then keeps it so.
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("slow"):
            if not mark.kwargs.get("reason"):
                raise pytest.UsageError(
                    f"{item.nodeid} is slow and does not say what it costs: slow(reason=...)"
                )


def pytest_sessionfinish() -> None:
    shutil.rmtree(_SANDBOX, ignore_errors=True)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return ROOT / "tests" / "golden" / "csm-tiny"


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
    from tests.support.models import MICRO_FLAVORS
    from tools.random_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("models") / "csm-random-micro"
    return write_checkpoint(folder, flavors=MICRO_FLAVORS, ends=False)


@pytest.fixture(scope="session")
def quick_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four codebooks, all 2048 positions, takes that end after about ten frames. Read-only."""
    from tests.support.models import QUICK_FLAVORS
    from tools.random_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("models") / "csm-random-quick"
    return write_checkpoint(folder, flavors=QUICK_FLAVORS, ends=True)


@pytest.fixture(scope="session")
def endless_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the quick one, but takes last until something stops them. Read-only."""
    from tests.support.models import QUICK_FLAVORS
    from tools.random_checkpoint import write_checkpoint

    folder = tmp_path_factory.mktemp("models") / "csm-random-endless"
    return write_checkpoint(folder, flavors=QUICK_FLAVORS, ends=False)


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


@pytest.fixture
def voices_folder(tmp_path: Path) -> Path:
    """Two voices: speaker 0 without a name, speaker 1 called anna."""
    from tests.support.speech import write_clip

    folder = tmp_path / "references"
    write_clip(folder / "reference.wav", "The first voice.", pitch_hz=110)
    write_clip(folder / "reference1-anna.wav", "The second voice.", pitch_hz=210)
    return folder


@pytest.fixture
def make_studio(quick_checkpoint: Path, tmp_path: Path, voices_folder: Path) -> MakeStudio:
    """Opens a studio with the settings that a user would give; whatever can differ is set."""
    from tests.support.studio import open_with

    def make(**flags: Any) -> Studio:
        return open_with(
            {
                "model": str(quick_checkpoint),
                "dtype": "float32",
                "references": str(voices_folder),
                "output": str(tmp_path / "outputs"),
                "whisper_model": "off",
                "seed": "1",
                **flags,
            }
        )

    return make


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    """Runs the program many times without loading torch each time."""
    from tests.support.program import Programs

    programs = Programs()
    yield programs
    programs.close()
