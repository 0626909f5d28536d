"""Replies of a run in a store: other machines have them, and a machine that is killed or lost takes few of them with it."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.llm.endpoint import stored_replies
from pipeline.llm.endpoint.response_cache import Answer, ResponseCache, forget_useless
from pipeline.llm.endpoint.stored_replies import local_replies
from pipeline.storage.stores import place
from tests.object_store import new_bucket

WORKER = "0-of-1"
PROJECT = Path(__file__).parents[4]
KILLED = """
import os, signal, sys
from pipeline.storage.stores import place
from tests.pipeline.llm.endpoint.test_stored_replies import WORKER, ResponseCache, put
put(ResponseCache(place(sys.argv[1]), WORKER), 1)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the replies, in a store, as the first machine sees it."""
    with new_bucket() as bucket:
        on_machine("first", tmp_path, monkeypatch)
        yield place(f"{bucket}/demo/_replies")


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the disk is that of a machine."""
    (tmp_path / name).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / name)


def key(name: object) -> bytes:
    return sha256(str(name).encode()).digest()


def put(replies: ResponseCache, *names: object, size: int = 10) -> None:
    for name in names:
        replies.put(key(name), Answer({"name": str(name) * size}, 10, 5), model="m", seconds=0.5, cost=None)


def known(replies: ResponseCache, *names: object) -> list[bool]:
    return [replies.get(key(name)) is not None for name in names]


def taken(replies: ResponseCache) -> int:
    """Tokens read by all workers."""
    return sum(read for read, *_ in replies.totals().values())


def test_another_machine_has_what_the_first_one_stored(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ResponseCache(folder, WORKER)
    put(first, 1, 2)
    first.put_fact("probe", {"n": True})
    first.put_lost(7, 0, model="m", why="a fault", cost=None)
    first.close()
    on_machine("second", tmp_path, monkeypatch)
    second = ResponseCache(folder, WORKER)
    assert known(second, 1, 2, 3) == [True, True, False]
    assert second.get_fact("probe") == {"n": True}
    assert taken(second) == 27
    put(second, 3)
    second.close()
    on_machine("first", tmp_path, monkeypatch)
    again = ResponseCache(folder, WORKER)
    assert known(again, 1, 2, 3) == [True, True, True]
    assert taken(again) == 37
    again.close()


def test_what_a_killed_worker_had_not_copied_is_copied_by_the_next(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=os.environ | {"PYTHONPATH": str(PROJECT)})
    assert killed.returncode == -signal.SIGKILL
    assert not list(folder.glob("*.sqlite"))
    ResponseCache(folder, WORKER).close()
    on_machine("second", tmp_path, monkeypatch)
    second = ResponseCache(folder, WORKER)
    assert known(second, 1) == [True]
    second.close()


def test_a_long_copy_is_cut_into_pieces(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_replies, "PIECE", 30_000)
    for start in range(0, 40, 10):
        replies = ResponseCache(folder, WORKER)
        put(replies, *range(start, start + 10), size=500)
        replies.close()
    names = sorted(path.name.rpartition("--")[2] for path in folder.glob("*.sqlite"))
    assert names[0] == "0001.sqlite"
    assert len(names) > 1
    on_machine("second", tmp_path, monkeypatch)
    second = ResponseCache(folder, WORKER)
    assert all(known(second, *range(40)))
    assert taken(second) == 400
    second.close()


def test_useless_replies_are_forgotten_on_all_machines(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ResponseCache(folder, WORKER)
    put(first, 1, 2)
    first.mark_useless([key(1)])
    first.close()
    on_machine("second", tmp_path, monkeypatch)
    forget_useless(folder)
    second = ResponseCache(folder, WORKER)
    assert known(second, 1, 2) == [False, True]
    second.close()
    on_machine("third", tmp_path, monkeypatch)
    third = ResponseCache(folder, WORKER)
    assert known(third, 1, 2) == [False, True]
    third.close()


def test_replies_on_a_disk_have_no_copies(tmp_path: Path) -> None:
    replies = ResponseCache(tmp_path / "_replies", WORKER)
    put(replies, 1)
    replies.close()
    assert local_replies(tmp_path / "_replies") == tmp_path / "_replies"
    assert [path.name for path in (tmp_path / "_replies").iterdir()] == [f"{WORKER}.sqlite"]
    with closing(sqlite3.connect(tmp_path / "_replies" / f"{WORKER}.sqlite")) as file:
        assert file.execute("SELECT count(*) FROM replies").fetchone() == (1,)
