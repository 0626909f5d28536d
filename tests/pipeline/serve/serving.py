"""A real server in a thread, and real requests to it."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.commands.serve import Opened, open_server
from pipeline.serve.attempts import Attempts
from stages import REPORTS


@dataclass(frozen=True)
class Reply:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


@dataclass(frozen=True)
class Served:
    """A server that runs."""

    opened: Opened

    def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: Any = None) -> Reply:
        """Send one request; `body` is bytes, or is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.opened.listening.getsockname()[1], timeout=60)
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, sent, kind | (headers or {}))
        found = connection.getresponse()
        reply = Reply(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        connection.close()
        return reply

    def query(self, sql: str, more: str = "") -> Reply:
        return self.ask(f"/api/query?sql={quote(sql)}{more}")


@contextmanager
def serving(
    root: Path | Sequence[Path], attempts: Callable[[], Attempts] | None = None, host: str = "127.0.0.1"
) -> Iterator[Served]:
    """A server of a run and those beside it, or of several runs, at a free port; all have the same attempts."""
    opened = open_server([root] if isinstance(root, Path) else root, REPORTS, lambda _: attempts, host, 0)
    thread = threading.Thread(target=opened.run)
    thread.start()
    try:
        while not opened.server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Served(opened)
    finally:
        opened.server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
