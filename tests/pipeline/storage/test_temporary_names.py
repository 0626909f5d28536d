"""What killed processes leave is removed; what somebody is still writing never is, wherever that process runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.storage.temporary_names import UNTOUCHED, leftovers, remove_leftovers, temporary_path

NAME = "import sys; from pathlib import Path; from pipeline.storage.temporary_names import *;"
WRITE = f"{NAME} path = temporary_path(Path(sys.argv[1])); path.touch(); print(path, flush=True)"
WAIT = f"{WRITE}; sys.stdin.read()"


def written_by(code: str, path: Path, *before: str) -> Path:
    """The temporary file that a process has written, which is over by now."""
    done = subprocess.run(
        [*before, sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, input=""
    )
    return Path(done.stdout.strip())


def test_what_dead_processes_left_is_removed_and_what_live_ones_write_is_kept(tmp_path: Path) -> None:
    gone, mine = written_by(WRITE, tmp_path / "a.parquet"), temporary_path(tmp_path / "a.parquet")
    mine.touch()
    with subprocess.Popen(
        [sys.executable, "-c", WAIT, str(tmp_path / "a.parquet")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin
        assert other.stdout
        theirs = Path(other.stdout.readline().strip())
        assert leftovers(tmp_path) == [gone]
        remove_leftovers(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([mine, theirs])
        other.stdin.close()


def test_a_process_in_another_space_of_process_numbers_keeps_its_file(tmp_path: Path) -> None:
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the system lets nobody make a space of process numbers here")
    high = ["sh", "-c", 'echo 32000 > /proc/sys/kernel/ns_last_pid; "$@"', "sh"]
    path = written_by(WRITE, tmp_path / "a.parquet", *apart, *high)
    assert "-32001" in path.name
    assert not Path("/proc/32001").exists()
    remove_leftovers(tmp_path)  # its number is free here, which says nothing about the process there
    assert path.exists()


def test_what_comes_from_elsewhere_is_removed_once_nobody_has_touched_it_for_a_week(tmp_path: Path) -> None:
    names = [".a.parquet.tmp-otherhost-1", f".b.parquet.tmp-{'0' * 16}-999999999-{'0' * 8}"]
    for path in (tmp_path / name for name in names):
        path.touch()
        assert leftovers(tmp_path) == []
        old = time.time() - UNTOUCHED - 60
        os.utime(path, (old, old))
        assert leftovers(tmp_path) == [path]
        assert leftovers(tmp_path, "other") == []
        remove_leftovers(tmp_path, path.name[1:10])
        assert not path.exists()


def test_no_two_processes_write_under_one_name_even_when_one_was_forked_from_the_other(tmp_path: Path) -> None:
    names = {temporary_path(tmp_path / "a").name, written_by(WRITE, tmp_path / "a").name}
    fork = (
        f"{NAME} import os; a = temporary_path(Path(sys.argv[1])); os.fork(); "
        "os.write(1, f'{temporary_path(Path(sys.argv[1]))}\\n'.encode())"
    )
    forked = subprocess.run(
        [sys.executable, "-c", fork, str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    names |= {Path(line).name for line in forked.stdout.split()}
    assert len(names) == 4
