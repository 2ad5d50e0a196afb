"""A Hugging Face hub on this machine: the endpoints that huggingface_hub uses, and answers that are wrong on purpose.

Contents come from a second address, as they do from the real hub's CDN: 127.0.0.1 is the hub, localhost the CDN.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from local_llms.hub.hf_cache import Repository
from tests.unit.hub.raw_gguf import Raw, Tensor

REPOSITORY = "owls/owl-1b-GGUF"
FILE = "owl-1b.Q4_0.gguf"
COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_" + "S3cret" * 5
_BLOCK = 1 << 14


def model(size: int = 200_000, seed: int = 0) -> bytes:
    """A sound GGUF file of about ``size`` bytes."""
    rows = max(1, size // 4096)
    weights = random.Random(seed).randbytes(rows * 4096)
    return Raw(tensors=[Tensor("a", (1024, rows))], data=weights).write()


@dataclass
class FakeHub:
    """A running hub, what it holds, and what it was asked.

    ``faults``: what is wrong with the next answers that carry content, one each:
    "short" (the connection ends half-way), "less" (half of it, told as the whole), "more" (bytes behind the end),
    "no-range" (all of it, from the start), "from-start" (a range, and another one than was asked for), "wrong-bytes"
    (the right range with other bytes), "stall" (nothing more after half), or a status such as "503".
    ``begun``: for each answer that carries content, the name of the file, and where in it the answer begins.
    ``gated``: the list of files is open, and the files are not.
    ``bare``: the list of files tells their names only. ``listed`` takes the place of parts of that list.
    """

    url: str = ""
    cdn: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {FILE: model()})
    commit: str = COMMIT
    etags: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    faults: deque[str] = field(default_factory=deque)
    refuse: tuple[int, str] | None = None
    token: str | None = None
    bytes_per_second: float | None = None
    bare: bool = False
    gated: bool = False
    listed: dict[str, object] = field(default_factory=dict)
    heads: int = 0
    listings: int = 0
    ranges: list[str | None] = field(default_factory=list)
    begun: list[tuple[str, int]] = field(default_factory=list)
    authorized: dict[str, list[str | None]] = field(default_factory=lambda: {"hub": [], "cdn": []})
    sent: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    half_sent: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def etag(self, name: str) -> str:
        return self.etags.get(name) or hashlib.sha256(self.files[name]).hexdigest()

    def row(self, name: str) -> dict[str, object]:
        """A file as the list of a repository tells it: a small one outside LFS has the SHA-1 that git gives it."""
        if self.bare:
            return {"rfilename": name}
        etag, size = self.etag(name), self.sizes.get(name, len(self.files[name]))
        lfs = {"size": size, "sha256": etag, "pointerSize": 130} if len(etag) == 64 else None
        return {"rfilename": name, "size": size, "blobId": etag if lfs is None else "0" * 40, "lfs": lfs}

    def here(self, name: str) -> int:
        """How many bytes of a file are in the cache of this process."""
        repository, etag = Repository.of(REPOSITORY), self.etag(name)
        found = (path for path in (repository.blob(etag), repository.partial(etag)) if path.exists())
        return max((path.stat().st_size for path in found), default=0)

    @property
    def transfers(self) -> int:
        """Requests for content."""
        return len(self.ranges)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        # What is counted as sent has reached the other side, or nearly.
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BLOCK)
        super().setup()

    def do_HEAD(self) -> None:
        self.hub.heads += 1
        self._resolve()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path.startswith("/api/models/"):
            self._listing()
        elif path.startswith("/cdn/"):
            self._content(unquote(path.removeprefix("/cdn/")))
        else:
            self._resolve()

    def _may(self) -> bool:
        self.hub.authorized["hub"].append(self.headers.get("Authorization"))
        if self.hub.refuse is not None:
            status, code = self.hub.refuse
            self._answer(status, b"", {"X-Error-Code": code} if code else {})
            return False
        if self.hub.token is not None and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._answer(401, b"", {"X-Error-Code": "RepoNotFound"})
            return False
        return True

    def _resolve(self) -> None:
        if not self._may():
            return
        if self.hub.gated:
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        head, _, rest = unquote(urlsplit(self.path).path).partition("/resolve/")
        name = rest.partition("/")[2]
        if head != f"/{REPOSITORY}":
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif rest.partition("/")[0] not in ("main", self.hub.commit):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif name not in self.hub.files:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.hub.commit})
        else:
            size = self.hub.sizes.get(name, len(self.hub.files[name]))
            linked = {"X-Linked-Etag": f'"{self.hub.etag(name)}"', "X-Linked-Size": str(size)}
            place = {"X-Repo-Commit": self.hub.commit, "Location": f"{self.hub.cdn}/cdn/{name}"}
            self._answer(302, b"", {**linked, **place})

    def _listing(self) -> None:
        if not self._may():
            return
        head, _, revision = unquote(urlsplit(self.path).path).partition("/revision/")
        if head != f"/api/models/{REPOSITORY}":
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in ("main", self.hub.commit):
            self._answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        self.hub.listings += 1
        rows = [self.hub.row(name) for name in self.hub.files]
        body = {"id": REPOSITORY, "sha": self.hub.commit, "siblings": rows, **self.hub.listed}
        self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _content(self, name: str) -> None:
        asked = self.headers.get("Range")
        with self.hub.guard:
            self.hub.ranges.append(asked)
            self.hub.authorized["cdn"].append(self.headers.get("Authorization"))
            fault = self.hub.faults.popleft() if self.hub.faults else ""
        if fault.isdigit():
            self._answer(int(fault), b"", {})
            return
        content = self.hub.files[name]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fault != "no-range" else 0
        with self.hub.guard:
            self.hub.begun.append((name, start))
        if start >= len(content):
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        if fault == "from-start":
            start = 0
        body = content[start:]
        if fault == "wrong-bytes":
            body = bytes(len(body))
        elif fault == "more":
            body += bytes(1000)
        elif fault == "less":
            body = body[: len(body) // 2]
        partial = asked is not None and fault != "no-range"
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._body(body, fault)

    def _body(self, body: bytes, fault: str) -> None:
        stop = len(body) // 2 if fault in ("short", "stall") else len(body)
        for place in range(0, stop, _BLOCK):
            block = body[place : min(place + _BLOCK, stop)]
            # Before it goes: whoever has it may look at the count at once.
            with self.hub.guard:
                self.hub.sent += len(block)
            self.wfile.write(block)
            if self.hub.bytes_per_second is not None:
                time.sleep(len(block) / self.hub.bytes_per_second)
        self.hub.half_sent.set()
        if fault == "stall":
            self.hub.released.wait(30)
        if fault in ("short", "stall"):
            self.close_connection = True

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, address: object) -> None:
        """A client that was killed has gone away."""


@contextmanager
def serve() -> Iterator[FakeHub]:
    """Run a hub; every test has its own."""
    hub = FakeHub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.cdn = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
