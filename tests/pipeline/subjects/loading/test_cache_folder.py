"""The cache never hands out what is half written or out of date."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.subjects.loading.model_source import cache_folder, content_hash, folder_made_once


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEUROGLOSS_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("NEUROGLOSS_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "neurogloss"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "neurogloss"


def test_a_hash_is_the_files_sha256_and_is_read_again_after_a_change(own_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    assert content_hash(file) == hashlib.sha256(b"first").hexdigest()
    file.write_bytes(b"other")
    os.utime(file, ns=(0, 12345))
    assert content_hash(file) == hashlib.sha256(b"other").hexdigest()


def test_an_unchanged_file_is_not_read_twice(own_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"first")
    before, stat = content_hash(file), file.stat()
    with file.open("r+b") as stream:
        stream.write(b"xxxxx")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert content_hash(file) == before, "size, inode and time say that it is the same file"


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"seen": 3}', '{"sha256": "short", "seen": [1, 2, 3]}'])
def test_a_broken_note_is_ignored(own_cache: Path, tmp_path: Path, junk: str) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"data")
    content_hash(file)
    for note in (own_cache / "hashes").iterdir():
        note.write_text(junk)
    assert content_hash(file) == hashlib.sha256(b"data").hexdigest()


def test_a_hash_is_found_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocker = tmp_path / "a-file"
    blocker.write_bytes(b"data")
    monkeypatch.setenv("NEUROGLOSS_CACHE", str(blocker / "below"))
    assert content_hash(blocker) == hashlib.sha256(b"data").hexdigest()


def test_a_folder_is_made_once(own_cache: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "a").write_text("done")

    first = folder_made_once("models/x", make)
    assert folder_made_once("models/x", make) == first
    assert len(calls) == 1
    assert (first / "a").read_text() == "done"


def test_an_error_leaves_no_folder_behind_that_could_be_taken_for_done(own_cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        folder_made_once("models/x", fail)
    made = folder_made_once("models/x", lambda folder: (folder / "whole").touch())
    assert [file.name for file in made.iterdir()] == ["whole"]
    assert not list(made.parent.glob(".x.tmp-*"))


def test_a_folder_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NEUROGLOSS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="NEUROGLOSS_CACHE"):
        folder_made_once("models/x", lambda folder: None)


SLOW = """
import sys, time, pathlib
from pipeline.subjects.loading.model_source import folder_made_once
def make(folder):
    pathlib.Path(sys.argv[1]).open("a").write("made\\n")
    (folder / "a").write_text("half")
    time.sleep(float(sys.argv[2]))
    (folder / "b").write_text("whole")
print(sorted(file.name for file in folder_made_once("models/x", make).iterdir()))
"""


def test_a_killed_process_leaves_nothing_that_is_used(own_cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", SLOW, str(log)]
    victim = subprocess.Popen([*command, "60"])
    while not log.exists():
        time.sleep(0.02)
    time.sleep(0.1)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (own_cache / "models" / "x").exists()
    after = subprocess.run([*command, "0"], check=True, capture_output=True, text=True)
    assert after.stdout.strip() == "['a', 'b']"
    assert not list((own_cache / "models").glob(".x.tmp-*")), "what the victim left is cleared"


def test_processes_at_once_share_the_work_of_one(own_cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", SLOW, str(log), "0.5"]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in several] == ["['a', 'b']"] * 3
    assert log.read_text().count("made") == 1
