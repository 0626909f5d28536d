"""Other pages and other machines get nothing from a server, and every answer has its security headers."""

from pathlib import Path

import pytest

from pipeline.commands.serve import open_server
from pipeline.errors import UserError
from stages import REPORTS
from tests.pipeline.report.made_up_run import write_run
from tests.pipeline.serve.serving import Served, serving

PATHS = ["/", "/main.js", "/data/list.js", "/data/none.js", "/api/runs", "/api/query?sql=SELECT+1", "/nothing"]
FOREIGN = {
    "a name that is rebound": {"Host": "evil.example"},
    "the same with the port": {"Host": "evil.example:8000"},
    "a name that begins like ours": {"Host": "localhost.evil.example"},
    "an address beyond loopback": {"Host": "192.168.0.7"},
    "no name": {"Host": ""},
    "a broken address": {"Host": "[::1"},
    "another page": {"Origin": "https://evil.example"},
    "a page of another port": {"Origin": "http://127.0.0.1:1"},
    "a page without an origin": {"Origin": "null"},
    "a script of another page": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a page of another port that loads a script": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    "a frame in another page": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe",
    },
}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=list(FOREIGN))
def test_a_foreign_request_is_refused_everywhere(served: Served, headers: dict[str, str]) -> None:
    for path in PATHS:
        reply = served.ask(path, headers)
        assert reply.status == 403, path
        assert set(reply.json) == {"error"}


def test_a_link_on_another_page_leads_to_the_start_alone(served: Served) -> None:
    assert served.ask("/", LINK).status == 200
    assert served.ask("/api/query?sql=SELECT+1", LINK).status == 403
    assert served.ask("/", LINK, method="POST").status == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:{port}", "[::1]:9", "LOCALHOST:{port}"])
def test_its_own_pages_are_answered_through_a_tunnel_too(served: Served, host: str) -> None:
    name = host.format(port=served.opened.listening.getsockname()[1])
    headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
    assert served.ask("/api/runs", headers).status == 200


def test_every_answer_has_security_headers(served: Served) -> None:
    for path in [*PATHS, "/"]:
        found = served.ask(path).headers
        assert "connect-src 'self'" in found["content-security-policy"]
        assert "frame-ancestors 'none'" in found["content-security-policy"]
        assert found["x-content-type-options"] == "nosniff"
        assert found["cross-origin-resource-policy"] == "same-origin"
        assert found["cache-control"] == "no-store"
        assert "server" not in found
        assert "access-control-allow-origin" not in found


def test_beyond_loopback_a_token_is_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(write_run(tmp_path / "run", 4), host="0.0.0.0") as served:
        token = served.opened.token or ""
        assert len(token) > 40
        assert served.opened.address.endswith(f"/?token={token}")
        for path in PATHS:
            assert served.ask(path).status == 401
        wrong = [
            {"Authorization": f"Bearer {token}x"},
            {"Authorization": "Bearer "},
            {"Cookie": "a=b"},
            {"Cookie": '"'},
        ]
        for headers in wrong:
            assert served.ask("/api/runs", headers).status == 401
        assert served.ask("/api/runs?token=", {}).status == 401
        assert served.ask("/api/runs?token=%FF%00", {}).status == 401
        assert served.ask("/api/runs", {"Authorization": f"Bearer {token}"}).status == 200
        assert served.ask("/api/runs", {"Authorization": f"Bearer {token}", "Host": "192.168.0.7:80"}).status == 200
        assert served.ask("/api/runs", {"Authorization": f"Bearer {token}", "Host": "evil.example"}).status == 403
        opened = served.ask(f"/?token={token}")
        assert (opened.status, opened.headers["location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in opened.headers["set-cookie"]
        cookie = opened.headers["set-cookie"].split(";")[0]
        assert served.ask("/api/runs", {"Cookie": f"other=1; {cookie}"}).status == 200
    printed = capfd.readouterr()
    assert token not in printed.out + printed.err


def test_each_start_has_a_token_of_its_own(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 4)
    found = [open_server([root], REPORTS, lambda _: None, "0.0.0.0", 0) for _ in range(2)]
    for one in found:
        one.listening.close()
    assert found[0].token != found[1].token


def test_a_taken_port_and_a_missing_run_are_told(served: Served, tmp_path: Path) -> None:
    port = served.opened.listening.getsockname()[1]
    root = write_run(tmp_path / "run", 4)
    with pytest.raises(UserError, match=rf"--port {port}.*such as --port 8001"):
        open_server([root], REPORTS, lambda _: None, "127.0.0.1", port)
    with pytest.raises(UserError, match="--port 99999"):
        open_server([root], REPORTS, lambda _: None, "127.0.0.1", 99_999)
    with pytest.raises(UserError, match="make run"):
        open_server([tmp_path / "none"], REPORTS, lambda _: None, "127.0.0.1", 0)
