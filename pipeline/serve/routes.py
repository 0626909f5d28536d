"""The addresses of a server: the pages, their data, and the API."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.errors import UserError
from pipeline.report.pages import SITE
from pipeline.serve.attempts import AskedActivations, AskedSimulation, AskedToKeep, AttemptThread, read_asked
from pipeline.serve.live_run import LiveRun, NotFoundError, given_number
from pipeline.serve.locked_query import MOST_ROWS, ROWS, run_locked
from pipeline.serve.openapi import describe_api

TRY_IT = Path(__file__).with_name("site") / "try_it.js"
"""Of the pages, what needs a server."""
CHANGES = {
    "connect-src 'none'": "connect-src 'self'",
    '<script src="main.js" defer></script>': '<script src="try_it.js" defer></script>\n<script src="main.js" defer></script>',
}
"""What a server's page has in place of what the page on disk has."""
MOST_BODY = 64 * 1024
"""Bytes of the body of a request."""


class Answer(JSONResponse):
    """JSON in ASCII, as texts may hold halves of characters."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def make_app(live: LiveRun, attempts: AttemptThread | None) -> Starlette:
    """The server's application; without `attempts` nothing can be tried."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        if attempts is not None:
            await attempts.aclose()

    page = _page()
    routes: list[BaseRoute] = [
        Route("/", lambda _: page),
        Route("/index.html", lambda _: page),
        Route("/try_it.js", lambda _: FileResponse(TRY_IT)),
        Route("/data/{name:path}", partial(_script, live)),
        *api_routes(live, attempts),
        Mount("/", StaticFiles(directory=SITE)),
    ]
    faults: Mapping[Any, Any] = {
        HTTPException: lambda _, error: Answer({"error": error.detail}, error.status_code, error.headers),
        NotFoundError: lambda _, error: Answer({"error": str(error)}, 404),
        UserError: lambda _, error: Answer({"error": str(error)}, 400),
        FileNotFoundError: lambda *_: Answer({"error": "the run is changing its tables; ask again"}, 503),
        Exception: lambda *_: Answer({"error": "the server made a mistake; its terminal says which"}, 500),
    }
    return Starlette(routes=routes, exception_handlers=faults, lifespan=lifespan)


def api_routes(live: LiveRun, attempts: AttemptThread | None) -> list[Route]:
    """The API, as /api/openapi.json describes it."""
    tried = [
        Route("/api/simulate", partial(_simulate, attempts), methods=["POST"]),
        Route("/api/activations", partial(_activations, attempts), methods=["POST"]),
    ]
    return [
        Route("/api/openapi.json", lambda _: Answer(describe_api()), methods=["GET"]),
        Route("/api/runs", lambda _: Answer({"runs": [live.describe()]}), methods=["GET"]),
        Route("/api/units", lambda request: Answer(live.find_units(request.query_params)), methods=["GET"]),
        Route("/api/unit/{module:path}/{index}", partial(_unit, live), methods=["GET"]),
        Route("/api/query", partial(_query, live), methods=["GET"]),
        Route("/api/explanations", lambda request: Answer(live.kept(request.query_params)), methods=["GET"]),
        Route("/api/explanations", partial(_keep, live), methods=["POST"]),
        *tried,
    ]


def _page() -> Response:
    text = (SITE / "index.html").read_text(encoding="utf-8")
    for old, new in CHANGES.items():
        if old not in text:
            raise AssertionError(f"index.html holds no {old}")
        text = text.replace(old, new)
    return Response(text, media_type="text/html")


def _script(live: LiveRun, request: Request) -> Response:
    name = request.path_params["name"]
    if not name.endswith(".js"):
        raise NotFoundError(f"there is no data/{name}")
    return Response(live.script(name.removesuffix(".js")), media_type="text/javascript")


def _unit(live: LiveRun, request: Request) -> Response:
    return Answer(live.unit(request.path_params["module"], request.path_params["index"]))


def _query(live: LiveRun, request: Request) -> Response:
    rows = given_number(request.query_params, "limit", ROWS, MOST_ROWS)
    return Answer(run_locked(live.folder(), request.query_params.get("sql", ""), rows))


async def _simulate(attempts: AttemptThread | None, request: Request) -> Response:
    asked = read_asked(AskedSimulation, await _body(request))
    return Answer(await _able(attempts).simulate(asked.unit, asked.explanation))


async def _activations(attempts: AttemptThread | None, request: Request) -> Response:
    asked = read_asked(AskedActivations, await _body(request))
    return Answer(await _able(attempts).activations(asked.unit, asked.text))


async def _keep(live: LiveRun, request: Request) -> Response:
    asked = read_asked(AskedToKeep, await _body(request))
    return Answer(await run_in_threadpool(live.keep, asked.unit, asked.explanation))


def _able(attempts: AttemptThread | None) -> AttemptThread:
    if attempts is None:
        raise HTTPException(
            409, "nothing can be tried without a run file; start the server with: make serve CONFIG=my.toml"
        )
    return attempts


async def _body(request: Request) -> bytes:
    """The body of a request with JSON, refused as soon as it is too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the body has to be JSON; send the header Content-Type: application/json")
    found = b""
    async for part in request.stream():
        found += part
        if len(found) > MOST_BODY:
            raise HTTPException(
                413, f"the body is too long; at most {MOST_BODY:,} bytes are read", {"Connection": "close"}
            )
    return found
