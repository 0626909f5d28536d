"""Files and batches as the OpenAI API has them: upload a file of requests, submit it, ask until it is done, fetch replies."""

import json
import re
import threading
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
Outcome = tuple[int, Json | bytes]


class BatchService:
    """Batches are worked off when they are asked for the `asks_until_done`-th time."""

    def __init__(self, answer: Callable[[str, Json], tuple[int, Json]]) -> None:
        self._answer = answer
        self._lock = threading.Lock()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Json] = {}
        self.asks_until_done = 2
        self.asked: dict[str, int] = {}
        self.outcomes: list[str] = []
        """Statuses at which the next batches end; completed when there are none left."""
        self.fails: Callable[[str, Json], bool] = lambda custom_id, body: False
        """Whether a line of a batch fails with a status of 500."""
        self.done_before_expiry = 0
        """Lines that an expired batch has done."""
        self.loses_reply_to_create = 0
        """This many next submissions are taken, but their answer never arrives."""

    @property
    def lines(self) -> list[str]:
        """The custom ids of all lines of all batches, in order of submission."""
        return [
            json.loads(line)["custom_id"]
            for batch in self.batches.values()
            for line in self.files[batch["input_file_id"]].splitlines()
        ]

    def post(self, path: str, content: bytes) -> Outcome:
        with self._lock:
            if path == "/v1/files":
                return 200, self._upload(content)
            if path == "/v1/batches":
                batch = self._submit(json.loads(content))
                if self.loses_reply_to_create:
                    self.loses_reply_to_create -= 1
                    return 500, {"error": {"message": "lost"}}
                return 200, batch
        return 404, {"error": {"message": "Not Found"}}

    def get(self, path: str) -> Outcome:
        path, _, query = path.partition("?")
        if found := re.fullmatch(r"/v1/files/([^/]+)/content", path):
            return 200, self.files[found[1]]
        if found := re.fullmatch(r"/v1/batches/([^/]+)", path):
            with self._lock:
                batch = self.batches.get(found[1])
                return (404, {"error": {"message": "no such batch"}}) if batch is None else (200, self._state(batch))
        if path == "/v1/batches":
            return 200, self._page(dict(part.split("=") for part in query.split("&") if part))
        return 404, {"error": {"message": "Not Found"}}

    def _page(self, query: dict[str, str]) -> Json:
        """Newest first, two at a time, whatever is asked, so that a client has to turn the page."""
        names = list(reversed(self.batches))
        start = names.index(query["after"]) + 1 if "after" in query else 0
        shown = names[start : start + 2]
        return {
            "object": "list",
            "data": [self.batches[name] for name in shown],
            "has_more": start + 2 < len(names),
            "last_id": shown[-1] if shown else None,
        }

    def _upload(self, content: bytes) -> Json:
        boundary = content.split(b"\r\n", 1)[0]
        parts = [part for part in content.split(boundary) if b'name="file"' in part]
        data = parts[0].split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        name = self._new_file(data)
        told = {"object": "file", "created_at": 0, "filename": "f", "purpose": "batch", "status": "processed"}
        return told | {"id": name, "bytes": len(data)}

    def _new_file(self, data: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = data
        return name

    def _submit(self, body: Json) -> Json:
        name = f"batch-{len(self.batches)}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "created_at": 0,
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
        } | {key: body[key] for key in ("endpoint", "input_file_id", "completion_window", "metadata") if key in body}
        self.asked[name] = 0
        return self.batches[name]

    def _state(self, batch: Json) -> Json:
        name = batch["id"]
        self.asked[name] += 1
        if batch["status"] in {"completed", "failed", "expired", "cancelled"}:
            return batch
        batch["status"] = "in_progress"
        if self.asked[name] >= self.asks_until_done:
            batch["status"] = self.outcomes.pop(0) if self.outcomes else "completed"
            if batch["status"] in {"completed", "expired"}:
                self._work(batch)
        return batch

    def _work(self, batch: Json) -> None:
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        good: list[Json] = []
        bad: list[Json] = []
        for number, line in enumerate(lines):
            expired = batch["status"] == "expired" and number >= self.done_before_expiry
            if expired:
                bad.append({"custom_id": line["custom_id"], "response": None, "error": {"code": "batch_expired"}})
            elif self.fails(line["custom_id"], line["body"]):
                bad.append(
                    {"custom_id": line["custom_id"], "response": {"status_code": 500, "body": {}}, "error": None}
                )
            else:
                status, reply = self._answer(line["url"], line["body"])
                row = {
                    "custom_id": line["custom_id"],
                    "response": {"status_code": status, "body": reply},
                    "error": None,
                }
                (good if status == 200 else bad).append(row)
        for key, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                batch[key] = self._new_file("\n".join(json.dumps(row) for row in reversed(rows)).encode() + b"\n")
