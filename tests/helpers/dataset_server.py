"""A local HTTP server that can fail in a given way at each request."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class FaultyServer:
    """Files of the server and how it responds.

    Attributes:
        files: Contents by path.
        faults: Faults of the next requests, in order; later requests succeed. "cut N" sends only N bytes of the body,
            "flip" changes a bit of it, "status N" sends an error, "hang up" sends nothing, and "stall N" sends N bytes
            and waits for ``resume``.
        supports_ranges: Whether Range is supported.
        etags: ETags by path.
        last_modified: Last-Modified of all files.
        sends_length: Whether Content-Length is sent.
        redirects: Redirect targets by path.
        content_type: Content-Type of all files.
        requests: Path, Range and If-Range of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    supports_ranges: bool = True
    etags: dict[str, str] = field(default_factory=dict)
    last_modified: str | None = None
    sends_length: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    retry_after: str | None = None
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    base_url: str = ""
    resume: threading.Event = field(default_factory=threading.Event)
    is_stalled: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        """Return the URL of a path."""
        return f"{self.base_url}/{path}"

    def respond(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Respond to one request, with the next fault if there is one."""
        path, asked = request.path.removeprefix("/"), request.headers.get("Range")
        condition = request.headers.get("If-Range")
        self.requests.append((path, asked, condition))
        fault, _, number = (self.faults.pop(0) if self.faults else "").partition(" ")
        if fault == "hang":
            request.close_connection = True
            return
        if path in self.redirects:
            self._send_headers(request, 302, {"Location": self.redirects[path]})
            return
        if fault == "status" or path not in self.files:
            extra = {"Retry-After": self.retry_after} if self.retry_after else {}
            self._send_headers(request, int(number or 404), extra)
            return
        content, headers = self.files[path], {"Content-Type": self.content_type}
        validator = self.etags.get(path) or self.last_modified
        if path in self.etags:
            headers["ETag"] = self.etags[path]
        if self.last_modified:
            headers["Last-Modified"] = self.last_modified
        status, first = 200, 0
        if asked and self.supports_ranges and condition in (None, validator):
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= len(content):
                self._send_headers(request, 416, {"Content-Range": f"bytes */{len(content)}"})
                return
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        if self.sends_length:
            headers["Content-Length"] = str(len(body))
        if fault == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        self._send_headers(request, status, headers)
        if fault in ("cut", "stall"):
            body = body[: int(number)]
        request.wfile.write(body)
        request.wfile.flush()
        if fault == "stall":
            self.is_stalled.set()
            self.resume.wait(30)
        request.close_connection = True

    @staticmethod
    def _send_headers(request: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()


@contextmanager
def run_server() -> Iterator[FaultyServer]:
    """Run the server in threads until the block ends."""
    server = FaultyServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.respond(self)

        log_message: Callable[..., None] = lambda *_: None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        server.base_url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.resume.set()
            running.shutdown()
            thread.join()
