"""The description of the API in OpenAPI 3.1."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from pipeline.report.unit_list import NUMBERS
from pipeline.serve.attempts import AskedActivations, AskedSimulation, AskedToKeep
from pipeline.serve.live_run import COLUMNS, MOST_UNITS
from pipeline.serve.locked_query import LONGEST, MOST_ROWS, ROWS, SECONDS
from pipeline.storage.footers import CREATED_BY

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer", "minimum": 0}
NUMBER: Json = {"type": ["number", "null"]}
ACTIVATIONS: Json = {"type": "array", "items": NUMBER}
ERRORS = {
    "400": "what was asked for cannot be done; `error` says why",
    "401": "a token is needed",
    "403": "the request comes from another page, or under a foreign name",
}


def describe_api(runs: Sequence[str]) -> Json:
    """The document behind /api/openapi.json; runs: names of those that are served, the first one first."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Neurogloss", "version": CREATED_BY.split()[-1]},
        "servers": [
            {"url": "/", "description": f"the run {runs[0]}"},
            {
                "url": "/run/{run}/",
                "description": "any run, by its name",
                "variables": {"run": {"default": runs[0], "enum": list(runs)}},
            },
        ],
        "paths": _paths(_shapes()),
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _shapes() -> dict[str, Json]:
    """What answers hold."""
    sequence = {
        "seq_id": WHOLE,
        "expected": {"type": ["array", "null"], "items": NUMBER},
        "error": {"type": ["string", "null"]},
    }
    shapes: dict[str, Json] = {
        "run": {
            "name": TEXT, "address": TEXT, "state": TEXT, "units": WHOLE, "tables": {"type": "object"}, "try": _list(TEXT),
        },
        "units": {"total": WHOLE, "rows": _list(_object({name: _column(name) for name in COLUMNS}))},
        "unit": {
            "module": TEXT, "index": WHOLE,
            "tables": {"type": "object", "additionalProperties": _list({"type": "object"})},
        },
        "query": {
            "columns": _list(_object({"name": TEXT, "type": TEXT})), "rows": {"type": "array"},
            "truncated": {"type": "boolean"},
        },
        "kept": {
            "name": TEXT, "module": TEXT, "index": WHOLE, "polarity": TEXT, "text": TEXT, "written": TEXT,
            "scored": {"type": "boolean"},
        },
        "simulated": {
            "simulator": TEXT, "correlation": NUMBER, "ci_low": NUMBER, "ci_high": NUMBER, "correlation_random": NUMBER,
            "correlation_corpus": NUMBER, "correlation_corpus_low": NUMBER, "correlation_corpus_high": NUMBER,
            "n_sequences": WHOLE, "n_tokens": WHOLE, "sequences": _list(_object(sequence)),
        },
        "activations": {"tokens": _list(TEXT), "activations": ACTIVATIONS, "cut": {"type": "boolean"}},
    }  # fmt: skip
    return {name: _object(shape) for name, shape in shapes.items()}


def _paths(shapes: dict[str, Json]) -> Json:
    of_unit = [_given("module", "only those of this module"), _given("index", "only those of this unit", WHOLE)]
    matched = [
        _given(name, f"only rows with this {name}")
        for name in ("module", "explainer", "simulator", "status", "polarity")
    ]
    listed = [
        *matched,
        _given("q", "words in the explanation"),
        _given("sort", f"one of {', '.join(COLUMNS)}; with a - in front the largest first"),
        _given("limit", f"rows, at most {MOST_UNITS:,}", WHOLE),
        _given("offset", "rows to pass over", WHOLE),
    ]
    asked = [
        _given("sql", f"one SELECT of at most {LONGEST:,} characters", required=True),
        _given("limit", f"rows, {ROWS:,} unless said, at most {MOST_ROWS:,}", WHOLE),
    ]
    place = [
        _given("module", "such as layers.3.mlp", where="path"),
        _given("index", "of the unit", WHOLE, where="path"),
    ]
    return {
        "/api/openapi.json": _get("This document", {"type": "object"}),
        "/api/runs": _get("All runs that are served", _object({"runs": _list(shapes["run"])})),
        "/api/run": _get("The run that is asked about; `state` changes with its tables", shapes["run"]),
        "/api/units": _get("Rows of the list of units", shapes["units"], listed),
        "/api/unit/{module}/{index}": _get("All rows about a unit, by table", shapes["unit"], place),
        "/api/query": _get(
            f"Read-only SQL over the tables of the run in DuckDB, for {SECONDS} s at most; no files, network or settings",
            shapes["query"], asked,
        ),
        "/api/explanations": {
            **_get(
                "Explanations that were saved by hand; `scored` says whether the run has scored them",
                _object({"explanations": _list(shapes["kept"])}), of_unit,
            ),
            **_post("Save an explanation, which the next run scores like those of an explainer", AskedToKeep, shapes["kept"]),
        },
        "/api/simulate": _post(
            "Simulate an explanation on the exemplars of a unit, and score it", AskedSimulation, shapes["simulated"]
        ),
        "/api/activations": _post(
            "The activations of a unit on a text, null where tokens do not count", AskedActivations, shapes["activations"]
        ),
    }  # fmt: skip


def _column(name: str) -> Json:
    if name in NUMBERS or name == "density":
        return NUMBER
    return WHOLE if name in ("index", "candidate") else {"type": ["string", "null"]}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _given(name: str, meaning: str, kind: Json = TEXT, where: str = "query", *, required: bool = False) -> Json:
    return {"name": name, "in": where, "description": meaning, "schema": kind, "required": required or where == "path"}


def _get(summary: str, answer: Json, given: list[Json] | None = None) -> Json:
    return {"get": {"summary": summary, "parameters": given or [], "responses": _responses(answer)}}


def _post(summary: str, kind: type[BaseModel], answer: Json) -> Json:
    body = {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}
    return {"post": {"summary": summary, "requestBody": body, "responses": _responses(answer)}}


def _responses(answer: Json) -> Json:
    error = {"application/json": {"schema": _object({"error": TEXT})}}
    found: Json = {code: {"description": meaning, "content": error} for code, meaning in ERRORS.items()}
    return {"200": {"description": "what was asked for", "content": {"application/json": {"schema": answer}}}, **found}
