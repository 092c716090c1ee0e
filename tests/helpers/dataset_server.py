"""A server on this machine whose answers can be spoilt, one request after another."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Server:
    """What the server has and how it answers.

    Attributes:
        files: Contents by path.
        faults: What happens to the next requests, in turn; then all goes well. "cut N" sends N bytes of the answer,
            "flip" spoils a byte of it, "status N" answers with an error, "hang up" with nothing, "stuck N" sends N
            bytes and waits for ``go``.
        ranges: Whether it understands Range.
        etags: Validators by path.
        modified: Last-Modified of everything.
        announce: Whether it says how long the answer is.
        redirects: Where else to look, by path.
        kind: Content-Type.
        seen: Path, Range and If-Range of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    ranges: bool = True
    etags: dict[str, str] = field(default_factory=dict)
    modified: str | None = None
    announce: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    kind: str = "application/octet-stream"
    retry_after: str | None = None
    seen: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    address: str = ""
    go: threading.Event = field(default_factory=threading.Event)
    stuck: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        """Give the address of a path."""
        return f"{self.address}/{path}"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path, asked = request.path.removeprefix("/"), request.headers.get("Range")
        condition = request.headers.get("If-Range")
        self.seen.append((path, asked, condition))
        word, _, number = (self.faults.pop(0) if self.faults else "").partition(" ")
        if word == "hang":
            request.close_connection = True
            return
        if path in self.redirects:
            self._head(request, 302, {"Location": self.redirects[path]})
            return
        if word == "status" or path not in self.files:
            extra = {"Retry-After": self.retry_after} if self.retry_after else {}
            self._head(request, int(number or 404), extra)
            return
        content, headers = self.files[path], {"Content-Type": self.kind}
        validator = self.etags.get(path) or self.modified
        if path in self.etags:
            headers["ETag"] = self.etags[path]
        if self.modified:
            headers["Last-Modified"] = self.modified
        status, first = 200, 0
        if asked and self.ranges and condition in (None, validator):
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self._head(request, 416, {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        if self.announce:
            headers["Content-Length"] = str(len(body))
        if word == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        self._head(request, status, headers)
        if word in ("cut", "stuck"):
            body = body[: int(number)]
        request.wfile.write(body)
        request.wfile.flush()
        if word == "stuck":
            self.stuck.set()
            self.go.wait(30)
        request.close_connection = True

    @staticmethod
    def _head(request: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server in threads until the block ends."""
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        log_message: Callable[..., None] = lambda *_: None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server.address = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.go.set()
            running.shutdown()
            thread.join()
