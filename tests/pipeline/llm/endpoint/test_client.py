"""What the client makes of servers that break off, never end, send what was not asked for, or are not trusted."""

import asyncio
import json
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint import client
from pipeline.llm.endpoint.client import CHAT, Client
from pipeline.llm.endpoint.faults import Fault, NotFound
from tests.pipeline.llm.endpoint.loopback import Loopback

Answers = Callable[[dict[str, Any], int], Iterable[bytes]]
"""Pieces to send for a request and its number on the connection; each is sent a moment after the one before."""


def whole(content: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(content)}\r\n\r\n".encode() + content


def reply(**fields: Any) -> bytes:
    return whole(json.dumps(fields).encode())


@asynccontextmanager
async def answering(answers: Answers, close: bool = False, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that answers every request with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
                for piece in answers(body, number):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.005)
                number += 1
                if close:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "localhost", ssl=tls)
    async with server:
        yield f"{'https' if tls else 'http'}://localhost:{server.sockets[0].getsockname()[1]}/v1"


async def post(url: str, *questions: str, **settings: Any) -> list[Any]:
    """The reply to each question, one after the other over one client, or what was raised."""
    opened = Client(LanguageModel(model="m", base_url=url, **settings))
    found: list[Any] = []
    for question in questions:
        try:
            found.append(await opened.post(CHAT, json.dumps({"question": question}).encode()))
        except (Fault, UserError) as error:
            found.append(error)
        await asyncio.sleep(0.1)
    await opened.aclose()
    return found


def posted(answers: Answers, *questions: str, close: bool = False, **settings: Any) -> list[Any]:
    async def main() -> list[Any]:
        async with answering(answers, close) as url:
            return await post(url, *(questions or ("one",)), **settings)

    return asyncio.run(main())


LAST_ONE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde"


@pytest.mark.parametrize(
    "content", [b"", LAST_ONE[:30], LAST_ONE[:-2], b"SSH-2.0 hello\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", LAST_ONE]
)
def test_a_request_whose_reply_breaks_off_may_have_been_read(content: bytes) -> None:
    (fault,) = posted(lambda *_: [content], close=True)
    assert isinstance(fault, Fault)
    assert (fault.tokens, fault.answered) == (None, True)


def test_a_request_without_a_connection_was_surely_not_read() -> None:
    (fault,) = asyncio.run(post("http://127.0.0.1:9/v1", "one"))
    assert isinstance(fault, Fault)
    assert (fault.tokens, fault.answered) == ((0, 0), False)
    assert "no connection" in str(fault)


@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "a moment later"])
def test_a_second_reply_that_nobody_asked_for_reaches_no_other_request(together: bool) -> None:
    def answers(body: dict[str, Any], number: int) -> list[bytes]:
        own, unasked = reply(to=body["question"]), reply(to="nobody")
        return [own + unasked] if together else [own, unasked]

    questions = [f"question {number}" for number in range(6)]
    assert posted(answers, *questions) == [{"to": question} for question in questions]


def test_not_even_a_request_that_follows_at_once_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REST_SECONDS", 0.1)  # many times the moment after which it is sent here
    numbers = count()

    def answers(body: dict[str, Any], _: int) -> list[bytes]:
        own, unasked = reply(to=body["question"]), reply(to="nobody")
        return [own, unasked] if next(numbers) % 4 == 0 else [own]

    async def main() -> None:
        async with answering(answers) as url:
            opened = Client(LanguageModel(model="m", base_url=url))

            async def work(name: int) -> None:
                for number in range(8):
                    question = f"{name} {number}"
                    found = await opened.post(CHAT, json.dumps({"question": question}).encode())
                    assert found == {"to": question}

            await asyncio.gather(*map(work, range(4)))
            await opened.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"n": ' + b"1" * 100_000 + b"}", b"\xff", b"<html>", b""])
def test_what_cannot_be_read_is_a_fault(content: bytes) -> None:
    (fault,) = posted(lambda *_: [whole(content)])
    assert isinstance(fault, Fault)
    assert fault.tokens is None


ENDLESS = b"HTTP/1.1 %d OK\r\n%sTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"20000\r\n" + b" " * 2**17 + b"\r\n"


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("packed", [False, True])
def test_a_reply_that_does_not_end_is_given_up_while_it_comes_in(
    status: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOST_BYTES", 2**20)
    sent = 0

    def answers(*_: Any) -> Iterable[bytes]:
        nonlocal sent
        yield ENDLESS % (status, b"Content-Encoding: gzip\r\n" if packed else b"")
        zeros = zlib.compressobj(wbits=31)
        while True:
            sent += 1
            content = zeros.compress(bytes(2**22)) + zeros.flush(zlib.Z_SYNC_FLUSH)
            yield b"%x\r\n%s\r\n" % (len(content), content) if packed else PIECE

    (fault,) = posted(answers, timeout=20.0)
    assert isinstance(fault, Fault)
    assert "a reply of more than" in str(fault)
    assert (fault.tokens, fault.outage) == (None, False)
    assert sent < 64


def test_halves_of_surrogate_pairs_are_replaced_when_they_come() -> None:
    content = rb'{"text": "a \ud83d b \ud83d\ude00 \\ud83d", "\ude00": ["\uD83D"]}'
    (found,) = posted(lambda *_: [whole(content)])
    assert found == {"text": "a \ufffd b \N{GRINNING FACE} \\ud83d", "\ufffd": ["\ufffd"]}


def test_an_unknown_model_is_told_with_those_that_there_are() -> None:
    with Loopback(script=["404"]) as server:
        (error,) = asyncio.run(post(server.base_url, "one"))
    assert isinstance(error, NotFound)
    assert str(error).endswith("; the endpoint lists loopback")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def main() -> None:
        async with answering(lambda body, _: [reply(to=body["question"])], tls=tls) as url:
            (error,) = await post(url, "one")
            assert isinstance(error, UserError)
            assert "SSL_CERT_FILE" in str(error)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            assert await post(url, "one", "two") == [{"to": "one"}, {"to": "two"}]

    asyncio.run(main())
