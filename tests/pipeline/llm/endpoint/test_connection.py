"""HTTP as servers really speak it: chunks, replies that end with the connection, interim replies, TLS, and no HTTP."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.connection import HttpReply
from pipeline.llm.endpoint.http import Connections, TransportError
from pipeline.llm.endpoint.secrets import Secrets

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-Name: V\r\nContent-Length: 5\r\n\r\nabcde"
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nabcde"
LAST_ONE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde"


@asynccontextmanager
async def speaking(reply: bytes, close: bool = False, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """The address of a server that answers every request with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
                for place in range(0, len(reply), 7):
                    writer.write(reply[place : place + 7])
                    await asyncio.sleep(0)
                if close:
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", ssl=tls)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"{'https' if tls else 'http'}://localhost:{port}/v1" if tls else f"http://127.0.0.1:{port}/v1"


def connections(url: str) -> Connections:
    return Connections(Secrets.of(LanguageModel(model="m", base_url=url)), 20.0)


@pytest.mark.parametrize(
    ("reply", "close"), [(CHUNKED, False), (INTERIM, False), (TO_THE_END, True), (LAST_ONE, False), (LAST_ONE, True)]
)
def test_replies_of_every_framing_are_whole(reply: bytes, close: bool) -> None:
    async def main() -> list[HttpReply]:
        async with speaking(reply, close) as url:
            client = connections(url)
            found = [await client.post("/x", b"{}" * 9) for _ in range(3)]
            await client.aclose()
        return found

    for found in asyncio.run(main()):
        assert (found.status, found.content) == (200, b"abcde")
        assert found.headers.get("x-name") == ("V" if reply is INTERIM else None)


@pytest.mark.parametrize(
    "reply", [b"", LAST_ONE[:30], LAST_ONE[:-2], CHUNKED[:-9], b"SSH-2.0 hello\r\n\r\n", b"HTTP/1.1 x\r\n\r\n"]
)
def test_replies_that_end_too_early_or_are_no_http_are_told(reply: bytes) -> None:
    async def main() -> None:
        async with speaking(reply, close=True) as url:
            client = connections(url)
            with pytest.raises(TransportError) as failed:
                await client.post("/x", b"{}")
            assert (failed.value.connected, failed.value.sent) == (True, True)
            await client.aclose()

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def main() -> HttpReply:
        async with speaking(CHUNKED, tls=tls) as url:
            with pytest.raises(UserError, match="SSL_CERT_FILE"):
                await connections(url).post("/x", b"{}")
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            client = connections(url)
            await client.post("/x", b"{}")
            reply = await client.post("/x", b"{}")
            await client.aclose()
            return reply

    assert asyncio.run(main()).content == b"abcde"
