"""A stand-in for the Hugging Face hub on a local port, which serves what huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Serves ``files[repo/name]``; ``asked`` lists every request's path."""

    url: str
    files: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def stand_in(status: int | None = None) -> Iterator[Hub]:
    """A hub on a free port; with ``status``, one that answers nothing but that."""
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(f"{self.command} {path}")
            repo, _, name = path.lstrip("/").partition("/resolve/main/")
            file = hub.files.get(f"{repo}/{name}")
            if status is not None or file is None:
                code = "EntryNotFound" if any(key.startswith(f"{repo}/") for key in hub.files) else "RepoNotFound"
                self.send_response(status or 404)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            first, _, last = self.headers.get("Range", "bytes=-").removeprefix("bytes=").partition("-")
            part = content[int(first or 0) : int(last) + 1 if last else None]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if body:
                self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
