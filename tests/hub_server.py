"""A local server that speaks as much of the Hugging Face hub's protocol as a download of data set files needs."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote


@dataclass
class StoredFile:
    """A file of a repository. `large` ones are redirected to another address, as files in LFS or Xet are.

    `served` is what really goes over the wire, where that is not `content`.
    """

    content: bytes
    large: bool = False
    served: bytes | None = None
    called: str | None = None

    @property
    def etag(self) -> str:
        """What the hub names the content by: a git blob's SHA-1, or a large file's SHA-256, or what it is `called`."""
        if self.called is not None:
            return self.called
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repository:
    """A data set repository with one commit, which branches and the commit's own hash name."""

    commit: str
    files: dict[str, StoredFile]
    branches: tuple[str, ...] = ("main",)
    token: str | None = None
    gated: bool = False


@dataclass(frozen=True)
class Seen:
    """One request that the server has got."""

    method: str
    path: str
    authorization: str | None


@dataclass
class HubServer:
    """Serves `repositories` by ``owner/name``; a context manager. `status` answers everything with that status."""

    repositories: dict[str, Repository]
    status: HTTPStatus | None = None
    requests: list[Seen] = field(default_factory=list)

    @property
    def asked(self) -> list[Seen]:
        """The requests for files; the client has questions of its own as well."""
        return [seen for seen in self.requests if seen.path.startswith(("/datasets/", "/large/"))]

    @property
    def url(self) -> str:
        """The value for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def storage(self) -> str:
        """Where large files lie: to the client another host, which must not get the token."""
        return f"http://localhost:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            server_state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error for the program under test."""

    def _answer(self) -> None:
        hub = self.server_state
        path = unquote(self.path)
        hub.requests.append(Seen(self.command, path, self.headers.get("authorization")))
        if hub.status is not None:
            self._send(hub.status, {})
            return
        parts = path.split("/")
        if parts[1] == "large":
            self._send(HTTPStatus.OK, {}, self._stored("/".join(parts[2:4]), "/".join(parts[4:])))
            return
        if parts[1] != "datasets" or parts[4:5] != ["resolve"]:
            self._refuse(HTTPStatus.NOT_FOUND, "")
            return
        self._resolve("/".join(parts[2:4]), parts[5], "/".join(parts[6:]))

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.server_state.repositories.get(name)
        token = f"Bearer {repository.token}" if repository and repository.token else None
        if repository is None or (token and self.headers.get("authorization") != token):
            self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound")
        elif repository.gated:
            self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo")
        elif revision not in (repository.commit, *repository.branches):
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound")
        elif path not in repository.files:
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", {"X-Repo-Commit": repository.commit})
        else:
            stored = repository.files[path]
            headers = {"X-Repo-Commit": repository.commit}
            if stored.large:
                headers["X-Linked-ETag"] = f'"{stored.etag}"'
                headers["X-Linked-Size"] = str(len(stored.content))
                headers["Location"] = f"{self.server_state.storage}/large/{name}/{path}"
                self._send(HTTPStatus.FOUND, headers)
            else:
                self._send(HTTPStatus.OK, headers, stored)

    def _stored(self, name: str, path: str) -> StoredFile:
        return self.server_state.repositories[name].files[path]

    def _refuse(self, status: HTTPStatus, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": "refused", **(headers or {})})

    def _send(self, status: HTTPStatus, headers: dict[str, str], stored: StoredFile | None = None) -> None:
        body = b"" if stored is None else stored.content if stored.served is None else stored.served
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if stored is not None:
            self.send_header("ETag", f'"{stored.etag}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
