"""Tiny wheels, and a package index on this machine that serves them."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from local_llms.hub.source import FileSource, PackageSource, WheelMember

CONTENT = b"GGUF" + bytes(range(256)) * 400
MEMBER = "owl_weights/owl.gguf"


@dataclass(frozen=True)
class Card:
    """What ``fetch`` needs to know of a model."""

    name: str
    sources: tuple[PackageSource | FileSource, ...]
    notes: str = ""


def make_wheel(folder: Path, members: Mapping[str, bytes], distribution: str = "owl_weights") -> Path:
    """A wheel that pip accepts, with these files in it."""
    path = folder / f"{distribution}-1.0-py3-none-any.whl"
    info = f"{distribution}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def member(content: bytes = CONTENT, path: str = MEMBER) -> WheelMember:
    """What a catalog says about a file in a wheel."""
    return WheelMember(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def card(content: bytes = CONTENT, name: str = "owl-1b", path: str = MEMBER, wheel_size: int = 4000) -> Card:
    """A model that lies in the wheel of owl-weights."""
    source = PackageSource(
        distribution="owl-weights", version="1.0", wheel_size=wheel_size, members=(member(content, path),)
    )
    return Card(name, (source,))


@dataclass
class Index:
    """A running index. ``wheel_requests`` counts downloads; ``held`` stops them half-way until it is set."""

    url: str
    wheel_requests: int = 0
    half_sent: threading.Event = field(default_factory=threading.Event)
    held: threading.Event | None = None


@contextmanager
def serve(wheel: Path) -> Iterator[Index]:
    """Serve the simple index of one wheel on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith(".whl"):
                index.wheel_requests += 1
                self._send("application/octet-stream", wheel.read_bytes())
            else:
                page = f'<!DOCTYPE html><html><body><a href="/files/{wheel.name}">{wheel.name}</a></body></html>'
                self._send("text/html", page.encode())

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2
            self.wfile.write(body[:half])
            if kind != "text/html":
                self.wfile.flush()
                index.half_sent.set()
                held = index.held
                if held is not None:
                    held.wait(60)
            self.wfile.write(body[half:])

        def log_message(self, format: str, *arguments: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, address: object) -> None:
            """A client that was killed has gone away."""

    server = Server(("127.0.0.1", 0), Handler)
    index = Index(f"http://127.0.0.1:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield index
    finally:
        if index.held is not None:
            index.held.set()
        server.shutdown()
        server.server_close()
        thread.join()
