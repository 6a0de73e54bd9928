from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from csm_repl.voices import PrepareOptions, VoiceFolder
from tests.support.fake_voices import Codec, Listener, Open


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "references"
    folder.mkdir()
    return folder


@pytest.fixture
def codec() -> Codec:
    return Codec()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def open_folder(root: Path, tmp_path: Path, codec: Codec, listener: Listener) -> Open:
    def make(**changes: Any) -> VoiceFolder:
        arguments: dict[str, Any] = {
            "options": PrepareOptions(),
            "encode": codec,
            "codec_id": "fake",
            "transcriber": listener,
            "cache_dir": tmp_path / "cache",
            **changes,
        }
        return VoiceFolder(arguments.pop("root", root), **arguments)

    return make
