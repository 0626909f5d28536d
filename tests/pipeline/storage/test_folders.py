"""A folder is there as a whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.storage.folders import new_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.storage.folders import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_gets_its_name_when_it_is_full(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "target") as folder:
        (folder / "a").write_text("a")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_has_another_name_and_is_removed_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "target"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".target.tmp-")
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_only_an_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("a")
    for name in ("empty", "file"):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(UserError, match="is there already"), new_folder(tmp_path / name):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot write"), new_folder(tmp_path / "file" / "target"):
        pass
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_gives_way_to_a_new_one_that_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for text in ("old", "new"):
        with new_folder(target, replace=True) as folder:
            (folder / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["new"]
    with pytest.raises(ZeroDivisionError), new_folder(target, replace=True):
        raise ZeroDivisionError
    left = "import sys; from pathlib import Path; from pipeline.storage.temporary_names import temporary_path; "
    left += "temporary_path(Path(sys.argv[1])).mkdir()"  # as a process does that is killed between the two names
    subprocess.run([sys.executable, "-c", left, str(tmp_path / "target-old")], check=True)
    with new_folder(target, replace=True) as folder:
        (folder / "newer").write_text("newer")
    assert [path.name for path in target.iterdir()] == ["newer"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
