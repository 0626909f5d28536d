"""A key is sent to its endpoint and shown nowhere else."""

import asyncio
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.patience import Patience
from pipeline.llm.endpoint.replies import Replies
from pipeline.llm.endpoint.secrets import Secrets
from pipeline.llm.endpoint.sender import Sender
from pipeline.llm.engine import EngineError
from tests.pipeline.llm.endpoint.loopback import Loopback

KEY = "sk-neuro-4Zq81xW0pLmv7T"
TENANT = "tenant-9981-Qr"
PASSWORD = "open.sesame/7"
QUERY = "qk-77ab31c0-Xy"


def engine(**settings: Any) -> LanguageModel:
    return LanguageModel(**({"model": "m", "base_url": "http://host:1/v1"} | settings))


def test_a_key_is_read_from_the_variable_and_a_missing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f"{KEY}\n")
    assert Secrets.of(engine(key_variable="SOME_KEY")).headers == {"Authorization": f"Bearer {KEY}"}
    assert Secrets.of(engine()).headers == {}
    for settings in ({"key_variable": "NO_KEY"}, {"headers": {"X-Tenant": "env:NO_KEY"}}):
        with pytest.raises(UserError, match="NO_KEY"):
            Secrets.of(engine(**settings))


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(UserError) as refused:
        Secrets.of(engine(key_variable="SOME_KEY"))
    assert KEY not in str(refused.value)


def test_headers_of_the_run_file_go_before_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    monkeypatch.setenv("TENANT", TENANT)
    secrets = Secrets.of(engine(key_variable="SOME_KEY", headers={"authorization": "Token t", "X-T": "env:TENANT"}))
    assert secrets.headers == {"Authorization": "Token t", "X-T": TENANT}


def test_credentials_of_the_address_are_sent_but_not_named() -> None:
    secrets = Secrets.of(engine(base_url=f"https://ann:{PASSWORD.replace('/', '%2F')}@host/v1/?key={KEY}&v=2024-01"))
    assert secrets.endpoint == "https://host/v1"
    assert secrets.headers["Authorization"].startswith("Basic ")
    shown = secrets.redact(f"{secrets.headers} {PASSWORD} open.sesame%2F7 ?key={KEY} v=2024-01 {secrets!r}")
    for hidden in (PASSWORD, "sesame", KEY, "2024", secrets.headers["Authorization"]):
        assert hidden not in shown


def test_a_user_in_the_address_and_a_key_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with pytest.raises(UserError, match="leave one out"):
        Secrets.of(engine(base_url="https://ann:secret@host/v1", key_variable="SOME_KEY"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"Incorrect API key provided: {KEY}.", "Incorrect API key provided: ***."),
        ("Incorrect API key provided: sk-neu***********mv7T.", "Incorrect API key provided: ***."),
        ("bad key sk-ne...pLmv7T", "bad key ***"),
        ("bad key sk-…7T", "bad key ***"),
        ("token XXXX with sk-nxxxxxxx7T", "token XXXX with ***"),
        ("nothing secret... at all, 3 * 4", "nothing secret... at all, 3 * 4"),
    ],
)
def test_keys_and_their_masked_echoes_are_hidden(said: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    assert Secrets.of(engine(key_variable="SOME_KEY")).redact(said) == shown


def test_fields_of_the_body_that_are_named_secret_are_hidden() -> None:
    secrets = Secrets.of(engine(body={"gateway": {"api_key": KEY}, "effort": "medium"}))
    assert secrets.redact(f"{KEY} of medium size") == "*** of medium size"


FAULTS = ["400", "401", "403", "404", "422", "500", "503", "drop", "garbage", "moved", "quota", "context", "reset"]


def test_a_key_reaches_no_log_error_traceback_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    monkeypatch.setenv("TENANT", TENANT)
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    contexts: list[BaseException | None] = []

    async def meet(server: Loopback, fault: str) -> None:
        address = f"{server.base_url}?key={QUERY}"
        config = engine(base_url=address, key_variable="SOME_KEY", headers={"X-Tenant": "env:TENANT"}, retries=0)
        replies = Replies(tmp_path, "0-of-1")
        sender = Sender(config, replies, Ledger.of(Budget(), config, replies), Patience("", first=0.001))
        server.script.append(fault)
        try:
            await sender.ask("/chat/completions", {"messages": [], "seed": fault}, tokens_at_most=1)
        except (EngineError, UserError) as error:
            told.append(str(error) + "".join(traceback.format_exception(error)) + repr(vars(error)))
            contexts.append(error.__context__)
        await sender.client.get("/models", cast_to=object)
        await sender.aclose()

    with Loopback() as server:
        server.echo = True
        server.elsewhere = f"http://127.0.0.1:{server.port}/moved?key={KEY}"
        for fault in [*FAULTS, "ok"]:
            asyncio.run(meet(server, fault))
        heads = [headers for path, headers in server.heads if path.startswith("/v1/chat")]
        assert len(heads) == len(FAULTS) + 1
        assert all(head["authorization"] == f"Bearer {KEY}" and head["x-tenant"] == TENANT for head in heads)
        assert all(path.partition("?")[2] for path, _ in server.heads)
    assert len(told) == len(FAULTS)
    assert contexts == [None] * len(FAULTS)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    logged = caplog.text + repr([record.__dict__ for record in caplog.records])
    for secret in (KEY, TENANT, QUERY):
        assert secret.encode() not in files
        assert secret not in logged
        assert not [words for words in told if secret in words]


def test_without_a_key_no_authorization_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", TENANT)

    async def main(server: Loopback) -> None:
        config = engine(base_url=server.base_url)
        replies = Replies(tmp_path, "0-of-1")
        sender = Sender(config, replies, Ledger.of(Budget(), config, replies))
        await sender.ask("/chat/completions", {"messages": []}, tokens_at_most=1)
        await sender.client.get("/models", cast_to=object)
        await sender.aclose()

    with Loopback() as server:
        asyncio.run(main(server))
        assert len(server.heads) == 2
        for _, headers in server.heads:
            assert "authorization" not in headers
            assert not [value for value in headers.values() if KEY in value or TENANT in value]


OPENAI_DEBUG = """
import asyncio, logging, sys
from pathlib import Path
logging.basicConfig(level=logging.DEBUG)
from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.replies import Replies
from pipeline.llm.endpoint.sender import Sender

async def main():
    config = LanguageModel(model="m", base_url=sys.argv[1], key_variable="SOME_KEY", headers={"X-Tenant": "env:TENANT"})
    replies = Replies(Path(sys.argv[2]), "0-of-1")
    sender = Sender(config, replies, Ledger(Budget()))
    await sender.client.get("/models", cast_to=object)
    await sender.ask("/chat/completions", {"messages": []}, tokens_at_most=1)
    await sender.ask("/chat/completions", {"messages": [], "n": 1}, tokens_at_most=1)

asyncio.run(main(), debug=True)
"""


def test_not_even_the_debug_logs_of_the_libraries_show_a_key(tmp_path: Path) -> None:
    with Loopback() as server:
        server.script.extend(["ok", "401"])
        environment = {"OPENAI_LOG": "debug", "SOME_KEY": KEY, "TENANT": TENANT, "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", OPENAI_DEBUG, f"{server.base_url}?key={QUERY}", str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert server.requests == 2
    assert "UserError" in done.stderr
    for secret in (KEY, TENANT, QUERY):
        assert secret not in done.stdout + done.stderr
