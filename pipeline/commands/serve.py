"""Serve the pages of a run to browsers, with an API: on loopback unless told otherwise, and beyond it only to who has the token."""

import contextlib
import ipaddress
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.execution.progress import say
from pipeline.execution.stage import MethodReport

if TYPE_CHECKING:
    import uvicorn

    from pipeline.serve.served_runs import Opener


EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104
"""Hosts that stand for every address of the machine."""
LAST_SECONDS = 3
"""That requests under way get when the server ends."""


@dataclass(frozen=True)
class Opened:
    """A server that listens and is not running yet."""

    server: "uvicorn.Server"
    listening: socket.socket
    address: str
    """What a browser opens; it holds the token, where one is needed."""
    token: str | None

    def run(self) -> None:
        """Serve until interrupted."""
        self.server.run(sockets=[self.listening])


def serve_runs(
    roots: Sequence[Path],
    methods: Sequence[MethodReport],
    trials: Callable[[Path], "Opener | None"],
    host: str,
    port: int,
) -> None:
    """Serve runs until interrupted, and say where.

    Args:
        roots: their folders; with a single one, the runs beside it are served as well.
        trials: by a run's folder, what simulates explanations and runs the subject; None where the run file is not known.

    Raises:
        UserError: there is no such run, the address is taken, or the extra `serve` is not installed.
    """
    opened = open_server(roots, methods, trials, host, port)
    say(f"Serving {', '.join(map(str, roots))}: {opened.address} (Ctrl-C ends it)")
    sys.stdout.flush()  # whoever reads it through a pipe waits for it
    with contextlib.suppress(KeyboardInterrupt):
        opened.run()


def open_server(
    roots: Sequence[Path],
    methods: Sequence[MethodReport],
    trials: Callable[[Path], "Opener | None"],
    host: str,
    port: int,
) -> Opened:
    """A server at an address; port 0 is any that is free. Errors as of `serve_runs`."""
    try:
        import uvicorn

        from pipeline.serve.guard import Guard
        from pipeline.serve.routes import make_app
        from pipeline.serve.served_runs import ServedRuns
    except ImportError as error:
        raise UserError(
            f"{error.name} is missing, which serving needs; install it with: pip install 'neurogloss[serve]'"
        ) from None
    token = None if _is_loopback(host) else secrets.token_urlsafe(32)
    runs = ServedRuns(roots, methods, trials)
    listening = _listen(host, port)
    app = make_app(runs)
    guard = Guard(app, {host, socket.gethostname(), socket.getfqdn()} if token else {host}, token)
    # The log of requests stays off: the first address holds the token.
    settings = uvicorn.Config(
        guard,
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=LAST_SECONDS,
    )
    name = socket.gethostname() if host in EVERYWHERE else f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
    return Opened(uvicorn.Server(settings), listening, address, token)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot listen at --host {host} --port {port} ({error}); name another port, such as --port 8001"
        ) from None
