"""The addresses of a server: the pages, their data, and the API."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.errors import UserError
from pipeline.report.pages import SITE
from pipeline.serve.attempts import AskedActivations, AskedSimulation, AskedToKeep, AttemptThread, read_asked
from pipeline.serve.live_run import LiveRun, NotFoundError, given_number
from pipeline.serve.locked_query import MOST_ROWS, ROWS, run_locked
from pipeline.serve.openapi import describe_api
from pipeline.serve.served_runs import Opener, ServedRuns

OWN = Path(__file__).with_name("site")
SCRIPTS = ("runs.js", "try_it.js")
"""Of the pages, what needs a server."""
CHANGES = {
    "connect-src 'none'": "connect-src 'self'",
    '<script src="main.js" defer></script>': "\n".join(
        f'<script src="{name}" defer></script>' for name in (*SCRIPTS, "main.js")
    ),
}
"""What a server's page has in place of what the page on disk has."""
MOST_BODY = 64 * 1024
"""Bytes of the body of a request."""


class Answer(JSONResponse):
    """JSON in ASCII, as texts may hold halves of characters."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def make_app(runs: ServedRuns) -> Starlette:
    """The server's application: the first run under /, and every run under /run/NAME/."""
    attempts = AttemptThread()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await attempts.aclose()

    page = _page()
    of_run: list[BaseRoute] = [
        Route("/", lambda _: page),
        Route("/index.html", lambda _: page),
        *(Route(f"/{name}", lambda _, name=name: FileResponse(OWN / name)) for name in SCRIPTS),
        Route("/data/{name:path}", partial(_script, runs)),
        *api_routes(runs, attempts),
        Mount("/", StaticFiles(directory=SITE)),
    ]
    routes = [Route("/run/{run}", _with_slash), Mount("/run/{run}", routes=of_run), *of_run]
    faults: Mapping[Any, Any] = {
        HTTPException: lambda _, error: Answer({"error": error.detail}, error.status_code, error.headers),
        NotFoundError: lambda _, error: Answer({"error": str(error)}, 404),
        UserError: lambda _, error: Answer({"error": str(error)}, 400),
        FileNotFoundError: lambda *_: Answer({"error": "the run is changing its tables; ask again"}, 503),
        Exception: lambda *_: Answer({"error": "the server made a mistake; its terminal says which"}, 500),
    }
    return Starlette(routes=routes, exception_handlers=faults, lifespan=lifespan)


def api_routes(runs: ServedRuns, attempts: AttemptThread) -> list[Route]:
    """The API of a run, as /api/openapi.json describes it."""

    def get(path: str, answer: Callable[[LiveRun, Request], Any]) -> Route:
        return Route(path, lambda request: Answer(answer(_run(runs, request), request)), methods=["GET"])

    return [
        Route("/api/openapi.json", lambda _: Answer(describe_api(runs.names())), methods=["GET"]),
        Route("/api/runs", lambda _: Answer({"runs": runs.describe()}), methods=["GET"]),
        get("/api/run", lambda run, _: run.describe()),
        get("/api/units", lambda run, request: run.find_units(request.query_params)),
        get("/api/unit/{module:path}/{index}", lambda run, request: run.unit(*_unit(request))),
        get("/api/query", _query),
        get("/api/explanations", lambda run, request: run.kept(request.query_params)),
        Route("/api/explanations", partial(_keep, runs), methods=["POST"]),
        Route("/api/simulate", partial(_simulate, runs, attempts), methods=["POST"]),
        Route("/api/activations", partial(_activations, runs, attempts), methods=["POST"]),
    ]


def _page() -> Response:
    text = (SITE / "index.html").read_text(encoding="utf-8")
    for old, new in CHANGES.items():
        if old not in text:
            raise AssertionError(f"index.html holds no {old}")
        text = text.replace(old, new)
    return Response(text, media_type="text/html")


def _with_slash(request: Request) -> Response:
    """Addresses on a page start from its folder, so the page of a run has a slash at its end."""
    return RedirectResponse(f"{request.url.path}/")


def _name(request: Request) -> str:
    """The name of the run that is asked about; empty for the first one."""
    return str(request.path_params.get("run", ""))


def _run(runs: ServedRuns, request: Request) -> LiveRun:
    return runs.run(_name(request))


def _script(runs: ServedRuns, request: Request) -> Response:
    name = request.path_params["name"]
    if not name.endswith(".js"):
        raise NotFoundError(f"there is no data/{name}")
    return Response(runs.script(_name(request), name.removesuffix(".js")), media_type="text/javascript")


def _unit(request: Request) -> tuple[str, str]:
    return request.path_params["module"], request.path_params["index"]


def _query(run: LiveRun, request: Request) -> Any:
    rows = given_number(request.query_params, "limit", ROWS, MOST_ROWS)
    return run_locked(run.folder(), request.query_params.get("sql", ""), rows)


async def _simulate(runs: ServedRuns, attempts: AttemptThread, request: Request) -> Response:
    asked = read_asked(AskedSimulation, await _body(request))
    opener = await run_in_threadpool(_opener, runs, request)
    return Answer(await attempts.simulate(opener, asked.unit, asked.explanation))


async def _activations(runs: ServedRuns, attempts: AttemptThread, request: Request) -> Response:
    asked = read_asked(AskedActivations, await _body(request))
    opener = await run_in_threadpool(_opener, runs, request)
    return Answer(await attempts.activations(opener, asked.unit, asked.text))


async def _keep(runs: ServedRuns, request: Request) -> Response:
    asked = read_asked(AskedToKeep, await _body(request))
    run = await run_in_threadpool(_run, runs, request)
    return Answer(await run_in_threadpool(run.keep, asked.unit, asked.explanation))


def _opener(runs: ServedRuns, request: Request) -> Opener:
    opener = runs.opener(_name(request))
    if opener is None:
        raise HTTPException(
            409, "nothing can be tried on this run; start the server with its run file: make serve CONFIG=my.toml"
        )
    return opener


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
