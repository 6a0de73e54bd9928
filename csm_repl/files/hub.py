"""The files of a model: in a folder, in the hub's cache, or on the hub.

What is cached is used without asking the network. What is not is first checked, all of it, for access and for
room on the disk, and only then downloaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError, HubError
from csm_repl.events import Say
from csm_repl.files.adapters import find_adapter, is_adapter
from csm_repl.files.builtin import BUILTIN_MODEL, builtin_folder
from csm_repl.files.checkpoint import (
    CODEC_PREFIX,
    find_checkpoint,
    has_codec,
    shard_names,
    weight_names,
)
from csm_repl.files.companions import MIMI_FILE, MIMI_REPO, TOKENIZER_MIRROR
from csm_repl.files.json_files import read_config
from csm_repl.files.layouts import TRANSFORMERS
from csm_repl.files.text_front import FRONT_FILE, front_names

__all__ = ["DEFAULT_MODEL", "ModelFiles", "find_companions", "find_model", "hub_login"]

DEFAULT_MODEL = "sesame/csm-1b"
CODEC_FILES = ("mimi.safetensors", "codec.safetensors")
"""Under which a model may bring its own codec; the first one that is there counts."""
_UNGATED = (
    " Or use the ungated copy in transformers' layout that transformers' own model card used: "
    "--model eustlb/csm-1b."
)
_QUICK_S = (4.0, 6.0)
"""To connect, and to answer, for a hub that is there."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFiles:
    """Where everything that a model needs lies on the disk."""

    folder: Path
    """Has config.json and the weights."""
    tokenizer: Path
    codec: Path | None
    """None: it is inside the model's weights."""
    codec_config: Path | None
    name: str
    revision: str | None
    """Commit on the hub; None for a folder."""


@dataclass(frozen=True)
class _Wanted:
    repo: str
    filename: str
    revision: str | None = None


def find_model(
    model: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    token: str | None = None,
    say: Say = lambda _: None,
) -> ModelFiles:
    """Finds or downloads a model.

    Args:
        model: a folder, `owner/name` on the hub, or `demo` for the one inside the package.
        revision: branch, tag or commit on the hub.
        offline: never touch the network.
        token: access token; None: what `hf auth login` has stored.
        say: receives one sentence for what takes time.

    Raises:
        CheckpointError: the folder or repository is no complete CSM.
        HubError: not found, gated, not logged in, offline, unreachable or no room.
    """
    folder = builtin_folder() if model == BUILTIN_MODEL else Path(model).expanduser()
    hub = _Hub(offline=offline, token=token, say=say)
    if model and folder.is_dir():
        if is_adapter(folder):
            raise _only_an_adapter(folder)
        tokenizer, codec = _companions(folder, hub, inside=has_codec(find_checkpoint(folder)))
        return ModelFiles(folder, tokenizer, codec, _optional(folder / "codec.json"), folder.name, None)
    if model == BUILTIN_MODEL:
        raise CheckpointError(
            f"This installation has no built-in voice: {folder} is missing.",
            "Install csm-repl again, or name another --model.",
        )
    if model.count("/") != 1 or not _valid_name(model) or folder.exists():
        raise CheckpointError(
            f"{model} is neither a folder nor the name of a model on the hub.",
            f"Give --model a folder with a checkpoint, or a name such as {DEFAULT_MODEL}.",
        )
    return _from_hub(model, revision, hub)


def _only_an_adapter(folder: Path) -> CheckpointError:
    adapter = find_adapter(folder)
    made_for = f" for {adapter.base_model}" if adapter.base_model else ""
    return CheckpointError(
        f"{folder} holds an adapter{made_for}, and no model.",
        f"Use --adapter {folder}, and with --model the model that it was trained on; "
        f"'csm-repl merge {folder} -o DIR' makes one model of both.",
    )


def find_companions(
    folder: Path, *, offline: bool = False, token: str | None = None, say: Say = lambda _: None
) -> ModelFiles:
    """Tokenizer and codec for a model that is to be trained: a folder with a config.json, without weights.

    Raises:
        CheckpointError, HubError: as `find_model`.
    """
    tokenizer, codec = _companions(folder, _Hub(offline=offline, token=token, say=say))
    return ModelFiles(folder, tokenizer, codec, _optional(folder / "codec.json"), folder.name, None)


def _valid_name(repo: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError:
        return False
    return True


def _optional(path: Path) -> Path | None:
    return path if path.is_file() else None


def _companions(folder: Path, hub: _Hub, *, inside: bool = False) -> tuple[Path, Path | None]:
    """Tokenizer and codec weights: the folder's own, else those inside the model, else the published ones."""
    tokenizer = folder / "tokenizer.json"
    codec: Path | None = folder / (_own_codec({path.name for path in folder.iterdir()}) or CODEC_FILES[0])
    wanted = []
    if not tokenizer.is_file():
        wanted.append(_Wanted(TOKENIZER_MIRROR, "tokenizer.json"))
    assert codec is not None
    if not codec.is_file():
        if inside:
            codec = None
        elif (folder / "codec.json").is_file():
            raise CheckpointError(
                f"{folder} has a codec.json but none of {', '.join(CODEC_FILES)}.",
                "Copy the codec's weights beside it.",
            )
        else:
            wanted.append(_Wanted(MIMI_REPO, MIMI_FILE))
    found = dict(zip(wanted, hub.get(wanted), strict=True))
    for want, path in found.items():
        if want.repo == TOKENIZER_MIRROR:
            tokenizer = path
        else:
            codec = path
    return tokenizer, codec


def _own_codec(available: set[str]) -> str | None:
    return next((name for name in CODEC_FILES if name in available), None)


def _from_hub(repo: str, revision: str | None, hub: _Hub) -> ModelFiles:
    config_path = hub.cached(_Wanted(repo, "config.json", revision))
    if config_path is not None:
        files = _complete_snapshot(config_path.parent, repo, hub)
        if files is not None:
            return files
    available = hub.list_files(repo, revision)
    if "config.json" not in available:
        raise CheckpointError(f"{repo} has no config.json.", "Use a repository that holds a CSM.")
    own_codec, tokenizer_here = _own_codec(available), "tokenizer.json" in available
    if "codec.json" in available and own_codec is None:
        raise CheckpointError(
            f"{repo} has a codec.json but none of {', '.join(CODEC_FILES)}.",
            "Use a repository that is complete.",
        )
    others = [
        _Wanted(repo, name, revision)
        for name in ("tokenizer.json", "tokenizer_config.json", own_codec, "codec.json")
        if name is not None and name in available
    ]
    if not tokenizer_here:
        others.append(_Wanted(TOKENIZER_MIRROR, "tokenizer.json"))
    # These name what else is needed; they are gated like the weights, so access is checked with the rest.
    naming = [_Wanted(repo, name, revision) for name in ("config.json", FRONT_FILE) if name in available]
    hub.check([*naming, *others])
    config_path, *fronts = hub.download(naming)
    others += [_Wanted(repo, name, revision) for front in fronts for name in front_names(front)]
    config = read_config(config_path)
    layout, names, index = weight_names(config, available)
    inside = layout == TRANSFORMERS and "codec_config" in config
    if index is not None:
        hub.check([_Wanted(repo, index, revision)])
        [index_path] = hub.download([_Wanted(repo, index, revision)])
        content = read_config(index_path)
        names = shard_names(content, source=index)
        inside = inside and any(name.startswith(CODEC_PREFIX) for name in content["weight_map"])
    if own_codec is None and not inside:
        others.append(_Wanted(MIMI_REPO, MIMI_FILE))
    weights = [_Wanted(repo, name, revision) for name in names]
    hub.check([*weights, *others])
    hub.download([*others, *weights])
    if own_codec is None and not has_codec(find_checkpoint(config_path.parent)):
        # Its config names a codec, and its weights have none.
        hub.get([_Wanted(MIMI_REPO, MIMI_FILE)])
    files = _complete_snapshot(config_path.parent, repo, hub)
    if files is None:
        raise CheckpointError(
            f"The download of {repo} is incomplete.", "Start again; the download continues from there."
        )
    return files


def _complete_snapshot(folder: Path, repo: str, hub: _Hub) -> ModelFiles | None:
    """The model in a cached snapshot, or None if a file of it is not there."""
    config = read_config(folder / "config.json")
    available = {path.name for path in folder.iterdir() if path.exists()}
    try:
        _, names, index = weight_names(config, available)
    except CheckpointError:
        return None
    if index is not None:
        names = shard_names(read_config(folder / index), source=index)
    if FRONT_FILE in available:
        names = (*names, *front_names(folder / FRONT_FILE))
    if not set(names) <= available:
        return None
    tokenizer: Path | None = folder / "tokenizer.json"
    own_codec = _own_codec(available)
    codec = None if own_codec is None else folder / own_codec
    if "tokenizer.json" not in available:
        tokenizer = hub.cached(_Wanted(TOKENIZER_MIRROR, "tokenizer.json"))
    inside = codec is None and has_codec(find_checkpoint(folder))
    if codec is None and not inside:
        codec = hub.cached(_Wanted(MIMI_REPO, MIMI_FILE))
    if tokenizer is None or (codec is None and not inside):
        missing = (
            _Wanted(TOKENIZER_MIRROR, "tokenizer.json")
            if tokenizer is None
            else _Wanted(MIMI_REPO, MIMI_FILE)
        )
        hub.must_be_online(missing.repo, missing.filename)
        return None
    return ModelFiles(folder, tokenizer, codec, _optional(folder / "codec.json"), repo, folder.name)


def hub_login(token: str | None = None) -> str:
    """One sentence about the login, without asking the network."""
    from huggingface_hub import get_token

    if token:
        return "a token is set (HF_TOKEN)"
    try:
        return "logged in (stored token)" if get_token() else "not logged in"
    except OSError as error:
        return f"not logged in (the stored token cannot be read: {error.strerror})"


class _Hub:
    """huggingface_hub with our errors."""

    def __init__(self, *, offline: bool, token: str | None, say: Say) -> None:
        self.offline = offline or os.environ.get("HF_HUB_OFFLINE", "") in {"1", "true", "True", "ON", "YES"}
        self.token = token
        self.say = say
        self._answered = False

    def cached(self, want: _Wanted) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(want.repo, want.filename, revision=want.revision)
        return Path(found) if isinstance(found, str) and Path(found).exists() else None

    def get(self, wanted: list[_Wanted]) -> list[Path]:
        cached = {want: self.cached(want) for want in wanted}
        missing = [want for want, path in cached.items() if path is None]
        if missing:
            self.check(missing)
            cached.update(zip(missing, self.download(missing), strict=True))
        return [path for path in cached.values() if path is not None]

    def list_files(self, repo: str, revision: str | None) -> set[str]:
        """File names of a repository."""
        from huggingface_hub import HfApi

        self.must_be_online(repo)
        info = self._ask(
            repo, revision, lambda: HfApi().model_info(repo, revision=revision, token=self.token, timeout=15)
        )
        return {item.rfilename for item in info.siblings or []}

    def check(self, wanted: list[_Wanted]) -> None:
        """Raises HubError unless every file may be downloaded and there is room for what is missing."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        n_bytes = 0
        for want in wanted:
            if self.cached(want) is not None:
                continue
            self.must_be_online(want.repo, want.filename)
            url = hf_hub_url(want.repo, want.filename, revision=want.revision)
            metadata = self._ask(
                want.repo,
                want.revision,
                lambda url=url: get_hf_file_metadata(url, token=self.token, timeout=15),  # type: ignore[misc]
            )
            n_bytes += metadata.size or 0
        _check_room(n_bytes)

    def download(self, wanted: list[_Wanted]) -> list[Path]:
        from huggingface_hub import hf_hub_download

        paths = []
        for want in wanted:
            path = self.cached(want)
            if path is None:
                self.say(f"Downloading {want.filename} of {want.repo}.")
                path = Path(
                    self._ask(
                        want.repo,
                        want.revision,
                        lambda want=want: hf_hub_download(  # type: ignore[misc]
                            want.repo, want.filename, revision=want.revision, token=self.token
                        ),
                    )
                )
            paths.append(path)
        return paths

    def must_be_online(self, repo: str, filename: str = "") -> None:
        if self.offline:
            raise HubError(
                f"{repo} is not completely in the cache and the program is offline.",
                f"Run once without --offline, or download it where there is a network with "
                f"'{f'hf download {repo} {filename}'.strip()}', or give --model a folder.",
            )

    def _ask(self, repo: str, revision: str | None, call: Callable[[], Any]) -> Any:
        """Runs a call to the hub and turns its errors into ours."""
        import requests
        from huggingface_hub import errors

        page = f"https://huggingface.co/{repo}"
        try:
            self._reach()
            with _quiet_library():
                return call()
        except errors.GatedRepoError as error:
            raise HubError(
                f"{repo} is gated and this account has no access to it.",
                f"Accept the conditions at {page}, then run 'hf auth login' (or set HF_TOKEN)."
                + (_UNGATED if repo == DEFAULT_MODEL else ""),
            ) from error
        except errors.RevisionNotFoundError as error:
            raise HubError(
                f"{repo} has no revision {revision!r}.", f"Pick one of {page}/commits/main for --revision."
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise HubError(
                f"{repo} was not found on the hub, or it is private and your login has no access to it.",
                f"Check the name at {page}; for a private one run 'hf auth login' (or set HF_TOKEN).",
            ) from error
        except errors.LocalEntryNotFoundError as error:
            # "Not in the cache, and the hub did not answer": the network, not the repository.
            raise _unreachable(repo, page, error.__cause__ or error) from error
        except errors.EntryNotFoundError as error:
            raise HubError(
                f"A file of {repo} was not found: {_first_line(error)}", f"See {page}/tree/main."
            ) from error
        except errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status == 401:
                raise HubError(
                    f"The hub does not accept the token for {repo}.",
                    "Run 'hf auth login' with a valid token, or remove HF_TOKEN.",
                ) from error
            raise HubError(
                f"The hub answered with an error for {repo}: {_first_line(error)}",
                "Try again in a few minutes, or give --model a folder.",
            ) from error
        except (requests.RequestException, errors.OfflineModeIsEnabled, ConnectionError) as error:
            raise _unreachable(repo, page, error) from error
        except OSError as error:
            if error.errno is None:  # huggingface_hub found a file shorter than announced
                raise _unreachable(repo, page, error) from error
            raise HubError(
                f"The download of {repo} could not be written: {error}.",
                "Free some disk space, or set HF_HOME to a folder on a larger disk.",
            ) from error

    def _reach(self) -> None:
        """Asks once whether there is a hub, and does not wait long, as the library would for every file."""
        if self._answered:
            return
        from huggingface_hub import constants, get_session

        get_session().head(constants.ENDPOINT, timeout=_QUICK_S, allow_redirects=False)
        self._answered = True


@contextlib.contextmanager
def _quiet_library() -> Iterator[None]:
    """huggingface_hub logs each of its attempts with the raw error; in the end we say it once."""
    from huggingface_hub.utils import logging as hub_logging

    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)


def _unreachable(repo: str, page: str, error: BaseException) -> HubError:
    return HubError(
        f"The hub cannot be reached for {repo}: {_why_unreachable(error)}.",
        "Check the network or the proxy and start again (a gated model also needs its conditions "
        f"accepted at {page} and 'hf auth login'). A copy on this machine works with --model DIR.",
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else repr(error))[:200]


def _why_unreachable(error: BaseException) -> str:
    """requests wraps urllib3 wraps the system's error, each quoting the whole last; this is its gist."""
    text = str(error)
    gists = {
        "NameResolution": "its address cannot be resolved",
        "refused": "the connection was refused",
        "timed out": "it did not answer in time",
        "unreachable": "the network is unreachable",
        "certificate": "its certificate was not accepted",
        "ProxyError": "the proxy does not let the request through",
    }
    return next((gist for sign, gist in gists.items() if sign in text), _first_line(error))


def _check_room(n_bytes: int) -> None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise HubError(
            f"The model needs {n_bytes / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left.",
            "Free some disk space, or set HF_HOME to a folder on a larger disk.",
        )
