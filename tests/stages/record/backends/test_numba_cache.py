"""What numba has compiled is used again for the same sources only."""

import os
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

from stages.record.backends import numba

ROOT = Path(__file__).parents[4]


def test_any_change_of_a_source_gives_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    copy = tmp_path / "record" / "backends" / "numba" / "__init__.py"
    sources = [tmp_path / "record" / "a.py", copy.parent / "b.py"]
    copy.parent.mkdir(parents=True)
    copy.write_text(Path(numba.__file__).read_text())
    for source in sources:
        source.write_text("x = 1\n")
    folders = [run_path(str(copy))["CACHE"] for _ in range(2)]
    assert folders[0] == folders[1]
    for source in sources:
        source.write_text("x = 22\n")
        folders.append(run_path(str(copy))["CACHE"])
    (tmp_path / "record" / "c.py").touch()
    folders.append(run_path(str(copy))["CACHE"])
    assert len(set(folders)) == 4


def test_what_kernels_take_from_other_files_lies_in_these_folders() -> None:
    kernels = [path for path in numba.SOURCES.rglob("*.py") if re.search(r"^@njit", path.read_text(), re.MULTILINE)]
    assert len(kernels) > 2
    for path in kernels:
        taken = re.findall(r"^from ([\w.]+) import", path.read_text(), re.MULTILINE)
        ours = {module for module in taken if module.startswith(("stages.", "pipeline."))}
        assert all(module.startswith("stages.record.") for module in ours - {"stages.evidence", "stages.settings"}), (
            path
        )


@pytest.mark.slow
def test_numba_is_told_unless_the_user_says_otherwise() -> None:
    program = "import stages.record.backends.numba, numba; print(numba.config.CACHE_DIR)"
    for given, expected in ((None, numba.CACHE), ("/elsewhere", "/elsewhere")):
        environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        environment |= {"NUMBA_CACHE_DIR": given} if given else {}
        told = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert told.stdout.strip() == str(expected), told.stderr
