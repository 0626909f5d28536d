"""Replies outlive kills, other workers' files are read, and one damaged file loses no other."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint import reply_files
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.response_cache import SYNC_SECONDS, Answer, ResponseCache, forget_useless
from tests.pipeline.llm.endpoint.loopback import Loopback, chat_reply
from tests.pipeline.llm.endpoint.sending import ask, endpoint_of, fill_disk

BODY = {"model": "m", "replies": [{"text": "words, \ud800 \N{GRINNING FACE}", "logprob": float("inf")}]}


def key(name: object) -> bytes:
    return sha256(str(name).encode()).digest()


def put(replies: ResponseCache, name: object, tokens: int = 10, cost: float | None = None) -> None:
    replies.put(key(name), Answer({"name": str(name)}, tokens, tokens // 2), model="m", seconds=0.5, cost=cost)


@pytest.fixture
def replies(tmp_path: Path) -> Iterator[ResponseCache]:
    opened = ResponseCache(tmp_path, "0-of-2")
    yield opened
    opened.close()


def left_by(folder: Path, worker: str, *names: object) -> Path:
    """A closed file of another worker."""
    other = ResponseCache(folder, worker)
    for name in names:
        put(other, name)
    other.put_fact(f"probe.{worker}", {"by": worker})
    other.close()
    return folder / f"{worker}.sqlite"


def test_a_reply_is_read_back_as_it_was(replies: ResponseCache) -> None:
    assert replies.get(key(1)) is None
    replies.put(key(1), Answer(BODY, 100, 7), model="m", seconds=1.0, cost=None)
    assert replies.get(key(1)) == Answer(BODY, 100, 7)
    assert replies.get(key(2)) is None


def test_facts_are_found_again_by_name(replies: ResponseCache) -> None:
    replies.put_fact("probe", {"n": False})
    replies.put_fact("probe", {"n": True})
    assert replies.get_fact("probe") == {"n": True}
    assert replies.get_fact("nothing") is None


def test_what_other_workers_left_is_used(tmp_path: Path, replies: ResponseCache) -> None:
    replies.close()
    left_by(tmp_path, "0-of-1", "a", "b")
    left_by(tmp_path, "3-of-4", "c")
    again = ResponseCache(tmp_path, "0-of-2")
    assert [bool(again.get(key(name))) for name in "abcd"] == [True, True, True, False]
    assert again.get_fact("probe.3-of-4") == {"by": "3-of-4"}
    again.close()


def test_what_workers_leave_later_is_learnt_on_looking_again(tmp_path: Path) -> None:
    replies = ResponseCache(tmp_path, "0-of-1")
    left_by(tmp_path, "0-of-1-2", "a")
    left_by(tmp_path, "0-of-1-3", "b")
    assert replies.get(key("a")) is None
    replies.look_again({"0-of-1-3"})
    assert [bool(replies.get(key(name))) for name in "ab"] == [True, False]
    left_by(tmp_path, "0-of-1-2", "c")
    replies.look_again(())
    assert [bool(replies.get(key(name))) for name in "abc"] == [True, True, True]
    replies.close()


def test_a_file_that_a_worker_has_open_is_left_alone(tmp_path: Path) -> None:
    left_by(tmp_path, "1-of-2", "b")
    at_work = ResponseCache(tmp_path, "0-of-2")
    put(at_work, "a")
    other = ResponseCache(tmp_path, "1-of-2")
    assert other.get(key("a")) is None
    assert other.get(key("b")) is not None
    assert {*other.totals()} == {"1-of-2", "1-of-2.1"}
    other.close()
    at_work.close()


def test_what_a_worker_stored_in_an_earlier_life_is_read_while_it_is_at_work_again(tmp_path: Path) -> None:
    left_by(tmp_path, "0-of-2", "a", "b")
    early = ResponseCache(tmp_path, "1-of-2")
    again = ResponseCache(tmp_path, "0-of-2")
    late = ResponseCache(tmp_path, "2-of-3")
    put(again, "c")
    for cache in (early, again, late):
        assert cache.get(key("a")) is not None
        assert cache.get(key("b")) is not None
        assert sum(read for read, *_ in cache.totals().values()) == (30 if cache is again else 20)
        assert cache.get_fact("probe.0-of-2") == {"by": "0-of-2"}
    for cache in (early, again, late):
        cache.close()


def test_replies_are_counted_once_where_a_worker_was_killed_while_it_moved_them(tmp_path: Path) -> None:
    file = left_by(tmp_path, "0-of-2", "a", "b")
    kept = file.read_bytes()
    ResponseCache(tmp_path, "0-of-2").close()
    file.write_bytes(kept)
    again = ResponseCache(tmp_path, "0-of-2")
    assert sum(read for read, *_ in again.totals().values()) == 20
    again.close()
    assert sorted(path.name for path in tmp_path.glob("*.sqlite")) == ["0-of-2.1.sqlite", "0-of-2.sqlite"]


def test_two_processes_cannot_work_as_the_same_worker(
    tmp_path: Path, replies: ResponseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_files, "BUSY_SECONDS", 0.1)
    with pytest.raises(UserError, match="another process works on"):
        ResponseCache(tmp_path, "0-of-2")


@pytest.mark.parametrize("damage", [b"no database at all" * 100, None])
def test_damaged_files_are_set_aside_and_the_others_kept(
    tmp_path: Path, damage: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = left_by(tmp_path, "1-of-3", *range(500))
    left_by(tmp_path, "2-of-3", "kept")
    content = damaged.read_bytes()
    damaged.write_bytes(
        damage if damage else content[: len(content) // 3] + random.Random(0).randbytes(len(content) // 3)
    )
    replies = ResponseCache(tmp_path, "0-of-3")
    assert replies.get(key("kept")) is not None
    replies.close()
    own = ResponseCache(tmp_path, "1-of-3")  # and by the worker itself
    put(own, "new")
    assert own.get(key("kept")) is not None
    assert own.get(key("new")) is not None
    own.close()
    assert (tmp_path / "1-of-3.sqlite.corrupt").exists()
    said = "".join(capsys.readouterr())
    assert "1-of-3.sqlite is damaged" in said


def test_a_reply_whose_bytes_are_damaged_is_missing(tmp_path: Path) -> None:
    file = left_by(tmp_path, "0-of-1", "a", "b")
    with sqlite3.connect(file) as direct:
        direct.execute("UPDATE replies SET body = x'00' WHERE key = ?", (key("a"),))
    direct.close()
    replies = ResponseCache(tmp_path, "0-of-1")
    assert replies.get(key("a")) is None
    assert replies.get(key("b")) is not None
    replies.close()


def test_totals_cover_replies_lost_ones_and_all_workers(tmp_path: Path) -> None:
    left_by(tmp_path, "0-of-1", "a", "b")  # 15 tokens each, of unknown cost
    replies = ResponseCache(tmp_path, "0-of-2")
    put(replies, "c", tokens=100, cost=2.0)
    put(replies, "d", tokens=100, cost=2.0)
    put(replies, "d", tokens=100, cost=2.0)  # takes the former one's place
    replies.put_lost(7, 3, model="m", why="status 500", cost=0.5)
    assert replies.totals() == {"0-of-1": (20, 10, 0.0, 20, 10), "0-of-2": (207, 103, 4.5, 0, 0)}
    replies.close()


def test_replies_of_no_use_are_forgotten_whoever_stored_them_and_still_count(tmp_path: Path) -> None:
    left_by(tmp_path, "0-of-1", "a", "b")
    replies = ResponseCache(tmp_path, "0-of-2")
    put(replies, "c")
    replies.mark_useless([key("b"), key("c"), key("nothing")])
    replies.close()
    forget_useless(tmp_path)
    forget_useless(tmp_path)
    again = ResponseCache(tmp_path, "0-of-2")
    assert [bool(again.get(key(name))) for name in "abc"] == [True, False, False]
    assert again.totals() == {"0-of-1": (20, 10, 0.0, 20, 10), "0-of-2": (10, 5, 0.0, 10, 5)}
    put(again, "b")
    again.close()
    forget_useless(tmp_path)
    once_more = ResponseCache(tmp_path, "0-of-2")
    assert once_more.get(key("b")) is not None, "a mark holds for the reply that it was made for"
    once_more.close()


def test_marks_hold_until_no_worker_has_the_reply_s_file(tmp_path: Path) -> None:
    left_by(tmp_path, "0-of-1", "a")
    marks = ResponseCache(tmp_path, "0-of-2")
    marks.mark_useless([key("a")])
    marks.close()
    at_work = ResponseCache(tmp_path, "0-of-1")
    forget_useless(tmp_path)
    at_work.close()
    forget_useless(tmp_path)
    replies = ResponseCache(tmp_path, "0-of-2")
    assert replies.get(key("a")) is None
    replies.close()


def test_what_is_stored_reaches_the_disk_soon_and_many_replies_share_a_write(
    replies: ResponseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", seen)
    for number in range(200):
        put(replies, number)
    time.sleep(3 * SYNC_SECONDS)
    assert synced
    assert len(synced) < 20
    assert all(path.endswith("0-of-2.sqlite-wal") for path in synced)
    writes = len(synced)
    time.sleep(2 * SYNC_SECONDS)
    assert len(synced) == writes, "nothing new, nothing to write"


def test_a_disk_that_takes_nothing_stops_with_advice(replies: ResponseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    put(replies, 1)
    time.sleep(3 * SYNC_SECONDS)
    with pytest.raises(UserError, match=r"No space left on device.*free some space"):
        replies.check()


def test_a_full_disk_stops_with_advice_and_keeps_what_was_stored(
    replies: ResponseCache,
) -> None:
    put(replies, "kept")
    replies.check()
    fill_disk(replies)
    with pytest.raises(UserError, match="free some space"):
        for number in range(1000):
            put(replies, number)
    with pytest.raises(UserError, match="free some space"):
        replies.check()
    assert replies.get(key("kept")) is not None


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[str], int]]:
    """A disk of 3 MB, and a function that gives it another size."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield lambda size: subprocess.check_call(["mount", "-o", f"remount,size={size}", str(folder)])
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_on_a_full_disk_nothing_more_is_sent_and_every_reply_in_flight_is_stored(tmp_path: Path) -> None:
    numbers = range(1200)

    disk, drawn = tmp_path / "disk", random.Random(0)
    with (
        small_disk(disk) as resize,
        Loopback(lambda _: chat_reply(drawn.randbytes(2000).hex()), latency=0.01) as server,
    ):
        config = LanguageModel(model="m", base_url=server.base_url, concurrency=32)

        async def main() -> int:
            endpoint = endpoint_of(config, disk)
            sender = LiveSender(endpoint)
            found = await asyncio.gather(*(ask(sender, number) for number in numbers), return_exceptions=True)
            await endpoint.aclose()
            assert all("free some space" in str(one) for one in found if not isinstance(one, Answer))
            return sum(isinstance(one, Answer) for one in found)

        stored = asyncio.run(main())
        assert 100 < stored == server.requests
        with pytest.raises(UserError, match="free some space"):
            asyncio.run(main())
        assert server.requests == stored, "a full disk is noticed before anything is paid for"
        resize("64m")
        assert asyncio.run(main()) == len(numbers)
        assert server.requests == len(numbers), "replies were paid for twice"


WRITES = """
import sys
from pathlib import Path
from tests.pipeline.llm.endpoint.test_response_cache import put
from pipeline.llm.endpoint.response_cache import ResponseCache
replies = ResponseCache(Path(sys.argv[1]), "0-of-1")
for number in range(10**6):
    put(replies, number)
    print(number, flush=True)
"""


def test_no_stored_reply_is_lost_to_a_kill(tmp_path: Path) -> None:
    for stop_after in (1, 40, 1500):
        writer = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        stored = [int(next(writer.stdout)) for _ in range(stop_after)]
        writer.send_signal(signal.SIGKILL)
        stored += [int(line) for line in writer.stdout if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
        other = ResponseCache(tmp_path, "0-of-2")  # reads what the killed worker left
        assert all(other.get(key(number)) for number in stored[:50])
        other.close()
        replies = ResponseCache(tmp_path, "0-of-1")
        assert all(replies.get(key(number)) for number in stored)
        replies.close()
