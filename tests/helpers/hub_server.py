"""A local server with the parts of the Hugging Face Hub's API that downloading a file and listing files need."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_LIST = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")


@dataclass
class HubServer:
    """Repositories and how they are served.

    Attributes:
        repos: The content of each file, by repository and path. Each has the branch ``main`` and the tag ``v1``.
        gated: Repositories that ask for a registration.
        answer: What each request is answered by, if not by the repositories: status, headers and body.
        requests: Method and path of each request.
        base_url: Address of the server.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    answer: tuple[int, dict[str, str], bytes] | None = None
    requests: list[str] = field(default_factory=list)
    base_url: str = ""

    def find(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the response to a request for a path."""
        if self.answer is not None:
            return self.answer
        match = _RESOLVE.fullmatch(path) or _LIST.fullmatch(path)
        repo = match["repo"] if match else ""
        if match is None or repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if repo in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if match["revision"] not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if path.startswith("/api/"):
            files = self.repos[repo].items()
            entries = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in files]
            return 200, {"Content-Type": "application/json"}, json.dumps(entries).encode()
        if match["file"] not in self.repos[repo]:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        body = self.repos[repo][match["file"]]
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}, body


@contextmanager
def run_hub() -> Iterator[HubServer]:
    """Run the server in threads until the block ends."""
    hub = HubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body = hub.find(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in headers.items() | {"Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD  # noqa: N815  the name that http.server calls
        log_message: Callable[..., None] = lambda *_: None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        hub.base_url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            running.shutdown()
            thread.join()
