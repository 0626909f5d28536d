"""What numba has compiled is used again for the same sources only."""

import os
import re
import subprocess
import sys
from pathlib import Path

from pipeline.compiled import SOURCES, compiled_folder

ROOT = Path(__file__).parents[2]


def test_any_change_of_a_source_gives_another_folder(tmp_path: Path) -> None:
    sources = [tmp_path / SOURCES[0] / "a.py", tmp_path / SOURCES[1] / "deeper" / "b.py"]
    for source in sources:
        source.parent.mkdir(parents=True)
        source.write_text("x = 1\n")
    folders = [compiled_folder(tmp_path), compiled_folder(tmp_path)]
    assert folders[0] == folders[1]
    for source in sources:
        source.write_text("x = 22\n")
        folders.append(compiled_folder(tmp_path))
    (tmp_path / SOURCES[0] / "c.py").touch()
    folders.append(compiled_folder(tmp_path))
    assert len(set(folders)) == 4


def test_all_that_numba_compiles_is_in_these_folders() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in ("pipeline", "stages")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^@n?jit", path.read_text(), re.MULTILINE)
    ]
    assert len(found) > 5
    assert all(path.startswith(SOURCES) for path in found)


def test_numba_is_told_unless_the_user_says_otherwise() -> None:
    program = "import stages, numba; print(numba.config.CACHE_DIR)"
    for given, expected in ((None, compiled_folder(ROOT)), ("/elsewhere", "/elsewhere")):
        environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        environment |= {"NUMBA_CACHE_DIR": given} if given else {}
        told = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert told.stdout.strip() == str(expected), told.stderr
