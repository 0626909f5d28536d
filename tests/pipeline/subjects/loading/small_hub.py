"""A hub of model repositories on loopback, with the few answers that huggingface_hub asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def small_hub(folder: Path) -> Iterator[str]:
    """The address of a hub where `org/tiny` holds a folder's files; `org/gated`, `org/pickled` and `org/down` behave so."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output quiet."""

        def answer(self) -> None:
            path = unquote(self.path.split("?")[0])
            if "org/gated" in path:
                self.send(403, b"", {"X-Error-Code": "GatedRepo"})
            elif "org/down" in path:
                self.send(503, b"", {})
            elif "/tree/" in path:
                self.list(path.split("/")[4])
            elif path.startswith("/api/") and "/revision/" in path:
                self.describe(path)
            elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
                self.deliver(folder / path.split(f"/{COMMIT}/")[1])
            else:
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

        def list(self, repo: str) -> None:
            files = [file for file in folder.rglob("*") if file.is_file()] if repo == "tiny" else []
            sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
            entries = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes.items()]
            pickle = {"type": "file", "path": "pytorch_model.bin", "size": 1, "oid": "0" * 40}
            self.send(200, json.dumps(entries or [pickle]).encode(), {"Content-Type": "application/json"})

        def describe(self, path: str) -> None:
            repo, revision = path.removeprefix("/api/models/").removeprefix("/api/datasets/").split("/revision/")
            if repo not in {"org/tiny", "org/pickled", "org/texts"}:
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif revision not in {"main", "v1", COMMIT}:
                self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            else:
                names = [file.name for file in folder.iterdir()] if repo == "org/tiny" else ["pytorch_model.bin"]
                entry = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                self.send(200, json.dumps(entry).encode(), {"Content-Type": "application/json"})

        def deliver(self, file: Path) -> None:
            if not file.is_file():
                self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                return
            content = file.read_bytes()
            tag = hashlib.sha256(content).hexdigest()
            self.send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

        def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
