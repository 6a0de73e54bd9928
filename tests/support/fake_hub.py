"""A hub on this machine: what huggingface_hub asks for when it lists, checks and downloads models.

Answers `api/models/REPO[/revision/REV]` and HEAD / GET of `REPO/resolve/REV/FILE` with the real hub's
headers and error codes, and keeps a log of what was asked, so that a test can say what was *not*
downloaded.

    with FakeHub() as hub:
        hub.add("sesame/csm-1b", {"config.json": b"{}"}, gated=True)
        hub.use(monkeypatch, cache=tmp_path / "hub")      # in this process
        subprocess.run(..., env=hub.environment(tmp_path))  # in another one
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_testtoken"
"""The one token that this hub knows; it opens gated and private repositories."""


@dataclass
class Repo:
    files: dict[str, bytes]
    gated: bool = False
    """Listed for all; its files are only for TOKEN."""
    private: bool = False
    """Not even listed without TOKEN."""
    branches: set[str] = field(default_factory=lambda: {"main"})

    @property
    def commit(self) -> str:
        digest = hashlib.sha1()
        for name, content in sorted(self.files.items()):
            digest.update(name.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()


@dataclass(frozen=True)
class Request:
    method: str
    repo: str
    file: str | None
    """None: a question to the API."""
    token: str | None
    n_bytes: int
    """Of the file's content that were sent."""


class FakeHub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[Request] = []
        self.fail_with: int | None = None
        """Answer everything with this status."""
        self.drop_after: int | None = None
        """Close the connection after so many bytes of every file."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """From here on connections are refused, and the open ones are dead."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.drop_connections()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, name: str, files: Mapping[str, bytes], **options: Any) -> Repo:
        repo = self.repos[name] = Repo(dict(files), **options)
        return repo

    def add_folder(self, name: str, folder: Path, *, without: tuple[str, ...] = (), **options: Any) -> Repo:
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in without}
        return self.add(name, files, **options)

    def downloads(self) -> list[str]:
        """`repo/file` of every GET of a file, in order."""
        return [f"{r.repo}/{r.file}" for r in self.log if r.method == "GET" and r.file is not None]

    def n_bytes_sent(self) -> int:
        return sum(request.n_bytes for request in self.log)

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that send another process here."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}

    def use(self, monkeypatch: pytest.MonkeyPatch, *, cache: Path) -> None:
        """Sends huggingface_hub in this process here. It reads its address and its cache at import."""
        from huggingface_hub import constants, file_download

        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache.parent / "token"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def drop_connections(self) -> None:
        """Clients keep connections open, and a handler would go on answering them."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def _token(self) -> str | None:
        value = self.headers.get("Authorization", "")
        return value.removeprefix("Bearer ") or None

    def _answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if parts[:2] == ["api", "models"]:
            revision = parts[5] if parts[4:5] == ["revision"] else "main"
            self._answer_for("/".join(parts[2:4]), None, revision)
        elif parts[2:3] == ["resolve"]:
            self._answer_for("/".join(parts[:2]), "/".join(parts[4:]), parts[3])
        else:
            self._send(404, b"{}", {})

    def _answer_for(self, name: str, file: str | None, revision: str) -> None:
        repo = self.hub.repos.get(name)
        status, error, message = self._refusal(repo, file, revision)
        if status is not None:
            headers = {"X-Error-Message": message} | ({"X-Error-Code": error} if error else {})
            self._note(name, file, 0)
            self._send(status, json.dumps({"error": message}).encode(), headers)
            return
        assert repo is not None
        headers = {"X-Repo-Commit": repo.commit}
        if file is None:
            self._note(name, None, 0)
            self._send(200, json.dumps(_listing(name, repo)).encode(), headers)
            return
        content = repo.files[file]
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["Accept-Ranges"] = "bytes"
        start = 0
        if range_ := self.headers.get("Range"):
            start = int(range_.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self._note(name, file, len(body) if self.command == "GET" else 0)
        self._send(206 if start else 200, body, headers)

    def _refusal(self, repo: Repo | None, file: str | None, revision: str) -> tuple[int | None, str, str]:
        known = self._token == TOKEN
        if self.hub.fail_with is not None:
            return self.hub.fail_with, "", "Something went wrong."
        if self._token is not None and not known:
            return 401, "", "Invalid credentials in Authorization header"
        if repo is None or (repo.private and not known):
            return (404 if known else 401), "RepoNotFound", "Repository not found"
        if revision not in {*repo.branches, repo.commit}:
            return 404, "RevisionNotFound", f"Invalid rev id: {revision}"
        if file is not None and repo.gated and not known:
            return 401, "GatedRepo", "Access to this model is restricted."
        if file is not None and file not in repo.files:
            return 404, "EntryNotFound", "Entry not found"
        return None, "", ""

    def _note(self, repo: str, file: str | None, n_bytes: int) -> None:
        self.hub.log.append(Request(self.command, repo, file, self._token, n_bytes))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = self.hub.drop_after
        if limit is not None and "ETag" in headers:
            self.wfile.write(body[:limit])
            self.close_connection = True
        else:
            self.wfile.write(body)


def _listing(name: str, repo: Repo) -> dict[str, Any]:
    return {
        "_id": "0",
        "id": name,
        "modelId": name,
        "sha": repo.commit,
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": False,
        "downloads": 1,
        "likes": 1,
        "tags": [],
        "siblings": [{"rfilename": file, "size": len(content)} for file, content in repo.files.items()],
    }
