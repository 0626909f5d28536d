"""The command serves until it is interrupted, says where, and ends without complaint."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from pipeline.commands.serve import open_server
from pipeline.errors import UserError
from stages import REPORTS
from tests.integration.reduced import command
from tests.pipeline.report.made_up_run import write_run


def test_it_says_where_it_serves_and_ends_with_an_interrupt(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 4)
    asked = command("serve", "--run", str(root), "--port", "0")
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", said)
            assert address, said
            with urlopen(address[0] + "api/runs") as reply:
                assert b'"name":"run"' in reply.read()
        finally:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_a_missing_package_is_told(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("pipeline.serve.guard", "pipeline.serve.routes"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"neurogloss\[serve\]"):
        open_server([write_run(tmp_path / "run", 4)], REPORTS, lambda _: None, "127.0.0.1", 0)
