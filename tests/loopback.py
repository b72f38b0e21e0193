"""An HTTP server on loopback that gives files by ranges, breaks off where it is told to, and counts."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from woundray.weights.repositories import REPOSITORIES

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Site:
    """What the server gives, and what it was asked.

    Attributes:
        files: path -> bytes.
        errors: start of a path -> status and X-Error-Code of the answer.
        breaks: path -> bytes after which the first answer breaks off.
        redirects: path -> path.
        tokens: path -> Authorization of a request that had one.
        ranges: whether ranges are given.
        asked: method, path and Range of each request.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def add_repository(
        self, hub_id: str, files: Mapping[str, bytes], *, declared: Mapping[str, str] | None = None
    ) -> None:
        """A model repository as huggingface_hub asks for one; weights are LFS files with the sha256 declared."""
        tree = []
        for path, content in files.items():
            entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
            if path.endswith((".safetensors", ".bin", ".ckpt")):
                digest = (declared or {}).get(path) or hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
            tree.append(entry)
            self.files[f"/{hub_id}/resolve/{COMMIT}/{path}"] = content
        info = {"id": hub_id, "modelId": hub_id, "sha": COMMIT, "private": False, "tags": [], "siblings": []}
        pinned = [commit for base in REPOSITORIES.values() for commit in base.revisions.values()]
        for revision in ("main", *pinned):
            self.files[f"/api/models/{hub_id}/revision/{revision}"] = json.dumps(info).encode()
        self.files[f"/api/models/{hub_id}/tree/{COMMIT}"] = json.dumps(tree).encode()

    def fetched(self) -> list[str]:
        """Paths of the files that were asked for."""
        return [path for method, path, _ in self.asked if method == "GET" and not path.startswith("/api/")]


@contextmanager
def serve() -> Iterator[Site]:
    """A site at http://127.0.0.1:PORT for as long as the context lasts."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path, asked_range = urlsplit(self.path).path, self.headers.get("Range")
            site.asked.append((self.command, path, asked_range))
            if "Authorization" in self.headers:
                site.tokens[path] = self.headers["Authorization"]
            if path in site.redirects:
                self._head(302, 0, {"Location": site.redirects[path]})
                return
            error = next((answer for start, answer in site.errors.items() if path.startswith(start)), None)
            if error is not None or path not in site.files:
                status, code = error or (404, "EntryNotFound")
                self._head(status, 0, {"X-Error-Code": code})
                return
            content, status, extra = site.files[path], 200, {}
            if asked_range and site.ranges:
                first = int(asked_range.removeprefix("bytes=").split("-")[0])
                if first >= len(content):
                    self._head(416, 0, {})
                    return
                extra = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
                content, status = content[first:], 206
            self._head(status, len(content), extra)
            if with_body and path in site.breaks:
                self.wfile.write(content[: site.breaks.pop(path)])
                self.close_connection = True
            elif with_body:
                self.wfile.write(content)

        def _head(self, status: int, length: int, extra: Mapping[str, str]) -> None:
            self.send_response(status)
            path = urlsplit(self.path).path
            headers = {"Content-Length": str(length), "X-Repo-Commit": COMMIT, "Content-Type": "application/json"}
            if path in site.files:
                headers["ETag"] = f'"{hashlib.sha256(site.files[path]).hexdigest()}"'
            for name, value in (headers | dict(extra)).items():
                self.send_header(name, value)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
