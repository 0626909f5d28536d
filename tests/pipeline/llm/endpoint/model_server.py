"""An OpenAI-compatible server on loopback around a tiny real model.

Each ability can be switched off, and is then ignored in silence, as real servers do; fields in `refused` are answered with
a 400.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.pipeline.llm.endpoint.batch_service import BatchService
from tests.pipeline.llm.endpoint.served_model import ServedModel, plain

Json = dict[str, Any]
REALLY_READ = 2_000
"""Tokens of the longest prompt that the model continues; the reply to a longer one is 7, or a single token."""


@dataclass(frozen=True)
class Does:
    """What the server does."""

    chat: bool = True
    plain: bool = True
    logprobs: int = 20
    """Alternatives at most; more are refused. 0 ignores the field."""
    prompt_logprobs: bool = True
    echo: bool = True
    token_ids: bool = True
    """Names tokens by their ids where asked for."""
    json_schema: bool = True
    n: bool = True
    seed: bool = True
    stop: bool = True
    refused: frozenset[str] = frozenset()
    context: int | None = None
    """As /models says."""
    key: str = ""
    any_model: bool = False
    """Takes any name for its model."""


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class ModelServer:
    """The state of the server, which tests read and change."""

    model: ServedModel
    does: Does = Does()
    url: str = ""
    seen: list[tuple[str, Json]] = field(default_factory=list)
    """Path and body of each request to the model, in order of arrival."""
    spoil: Callable[[str, Json, Json], Json] | None = None
    """Changes a reply before it is sent: (path, body, reply) -> reply."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    batches: BatchService = field(init=False)

    def __post_init__(self) -> None:
        self.batches = BatchService(self.answer)

    def now(self, **changes: Any) -> None:
        """Switch capabilities."""
        self.does = replace(self.does, **changes)

    def answer(self, path: str, body: Json) -> tuple[int, Json]:
        """Status and reply to one request to the model."""
        with self.lock:  # one forward pass at a time
            self.seen.append((path, body))
            try:
                reply = self._reply(path, body)
            except Refused as error:
                return error.status, {"error": {"message": str(error), "code": error.code}}
            return 200, self.spoil(path, body, reply) if self.spoil else reply

    def _reply(self, path: str, body: Json) -> Json:
        if (path == "/v1/chat/completions" and not self.does.chat) or (
            path == "/v1/completions" and not self.does.plain
        ):
            raise Refused(404, "Not Found")
        if body.get("model") != "tiny" and not self.does.any_model:
            raise Refused(404, f"The model `{body.get('model')}` does not exist", "model_not_found")
        for name in self.does.refused & set(body):
            raise Refused(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        asked = max(int(body.get(name) or 0) for name in ("logprobs", "top_logprobs", "prompt_logprobs"))
        if self.does.logprobs and asked > self.does.logprobs:
            raise Refused(400, f"at most {self.does.logprobs} log-probabilities")
        choices: list[Json] = []
        prompt = completion = 0
        for ids in self._prompts(path, body):
            prompt += len(ids)
            for _ in range(int(body.get("n", 1)) if self.does.n else 1):
                choice, tokens = self._choice(path, body, ids, len(choices))
                choices.append(choice)
                completion += tokens
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return {"id": "x", "model": "tiny", "choices": choices, "usage": usage}

    def _prompts(self, path: str, body: Json) -> list[list[int]]:
        if path == "/v1/chat/completions":
            found = [self.model.chat_ids(body["messages"])]
        else:
            prompt = body["prompt"]
            several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
            found = [
                self.model.text_ids(one) if isinstance(one, str) else list(one)
                for one in (prompt if several else [prompt])
            ]
        room = int(body.get("max_tokens") or body.get("max_completion_tokens") or 0)
        limit = self.does.context
        for ids in found:
            if limit is not None and len(ids) + room > limit:
                raise Refused(400, f"This model's maximum context length is {limit} tokens.", "context_length_exceeded")
        return found

    def _choice(self, path: str, body: Json, ids: list[int], index: int) -> tuple[Json, int]:
        chat = path == "/v1/chat/completions"
        room = int(body["max_completion_tokens"] if "max_completion_tokens" in body else body.get("max_tokens", 16))
        seed = body["seed"] + index if self.does.seed and body.get("seed") is not None else None
        stop = body.get("stop", []) if self.does.stop else []
        if len(ids) <= REALLY_READ or room <= 2:
            reply, rows, ended = self.model.reply(ids, room, body.get("temperature", 1.0), seed, stop)
        else:
            reply, rows, ended = self.model.text_ids("7"), [], True
        text = self.model.text(reply)
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        if chat and schema and self.does.json_schema:
            text, reply, rows, ended = json.dumps(legal(schema)), [], [], True
        choice: Json = {"index": index, "finish_reason": "stop" if ended else "length"}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        if self.does.logprobs and body.get("logprobs"):
            choice["logprobs"] = self._chat_logprobs(body, reply, rows) if chat else self._plain(body, ids, reply, rows)
        if not chat and self.does.prompt_logprobs and body.get("prompt_logprobs"):
            choice["prompt_logprobs"] = self._prompt_logprobs(ids, body["prompt_logprobs"])
        return choice, len(reply) + (1 if ended else 0)

    def _chat_logprobs(self, body: Json, reply: list[int], rows: list[Any]) -> Json:
        def entry(token: int, value: float) -> Json:
            return {
                "token": self.model.text([token]),
                "bytes": list(self.model.spelling(token)),
                "logprob": plain(value),
            }

        count = body.get("top_logprobs", 0)
        return {
            "content": [
                entry(token, row[token]) | {"top_logprobs": [entry(*pair) for pair in self.model.likeliest(row, count)]}
                for token, row in zip(reply, rows, strict=True)
            ]
        }

    def _plain(self, body: Json, ids: list[int], reply: list[int], rows: list[Any]) -> Json:
        """The older form: lists, and a mapping by text at each token; with `echo`, the prompt's tokens before."""
        tokens, all_rows = reply, list(rows)
        if body.get("echo") and self.does.echo:
            tokens, all_rows = [*ids, *reply], [None, *self.model.log_probabilities(ids)[:-1], *rows]
        tops = [None if row is None else self._top(body, row) for row in all_rows]
        values = [None if row is None else plain(row[token]) for token, row in zip(tokens, all_rows, strict=True)]
        return {
            "tokens": [self._name(body, token) for token in tokens],
            "token_logprobs": values,
            "top_logprobs": tops,
        }

    def _top(self, body: Json, row: Any) -> Json:
        pairs = self.model.likeliest(row, int(body["logprobs"]))
        return {self._name(body, token): plain(value) for token, value in reversed(pairs)}

    def _name(self, body: Json, token: int) -> str:
        if self.does.token_ids and body.get("return_tokens_as_token_ids"):
            return f"token_id:{token}"
        return self.model.text([token])

    def _prompt_logprobs(self, ids: list[int], count: int) -> list[Json | None]:
        found: list[Json | None] = [None]
        for token, row in zip(ids[1:], self.model.log_probabilities(ids)[:-1], strict=True):
            pairs = dict(self.model.likeliest(row, count)) | {token: float(row[token])}
            found.append(
                {
                    str(other): {"logprob": plain(value), "decoded_token": self.model.text([other])}
                    for other, value in pairs.items()
                }
            )
        return found


def legal(schema: Json) -> Any:
    """The smallest document that a schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: legal(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [legal(schema["items"]) for _ in range(schema.get("minItems", 0))]
    return {"string": "x", "integer": schema.get("minimum", 0), "number": 0.0, "boolean": True}.get(str(kind))


@contextmanager
def serving(model: ServedModel, **does: Any) -> Iterator[ModelServer]:
    """A server on a free port of loopback."""
    server = ModelServer(model, Does(**does))
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def _handler(server: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self._allowed():
                if self.path.startswith("/v1/models"):
                    entry: Json = {"id": "tiny", "object": "model", "created": 0, "owned_by": "tests"}
                    context = {} if server.does.context is None else {"max_model_len": server.does.context}
                    self._send(200, {"object": "list", "data": [entry | context]})
                else:
                    self._send(*server.batches.get(self.path))

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if self._allowed():
                if self.path.endswith("completions"):
                    self._send(*server.answer(self.path, json.loads(content)))
                else:
                    self._send(*server.batches.post(self.path, content))

        def _allowed(self) -> bool:
            if not server.does.key or self.headers.get("Authorization") == f"Bearer {server.does.key}":
                return True
            self._send(401, {"error": {"message": "Incorrect API key provided"}})
            return False

        def _send(self, status: int, reply: Json | bytes) -> None:
            content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    return Handler
