"""An explanation that somebody wrote is kept once, whole, and in the order of time."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.storage.by_hand import FOLDER, WrittenExplanation, read_by_hand, save_by_hand

UNIT = ("layers.2.mlp", "+", 7)
WRITER = """
import sys
from pathlib import Path
from pipeline.storage.by_hand import save_by_hand
for number in range(int(sys.argv[3])):
    save_by_hand(Path(sys.argv[1]), ("layers.2.mlp", "+", number % 5), f"{sys.argv[2]} {number}")
    save_by_hand(Path(sys.argv[1]), ("layers.2.mlp", "+", number % 5), f"of both {number}")
"""


def test_what_is_saved_is_read_back_in_the_order_of_time(tmp_path: Path) -> None:
    texts = ["colours", "</script> \u202e é 𝔸 \x00 \n two lines", "numbers"]
    saved = [
        save_by_hand(tmp_path, ("layers.2.mlp", polarity, 7), text) for text, polarity in zip(texts, "+-+", strict=True)
    ]
    assert read_by_hand(tmp_path) == saved
    assert [one.name for one in saved] == sorted(one.name for one in saved)
    assert [(one.module, one.index, one.polarity, one.text) for one in saved] == [
        ("layers.2.mlp", 7, polarity, text) for text, polarity in zip(texts, "+-+", strict=True)
    ]
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {f"{one.name}.json" for one in saved}


def test_a_run_without_any_has_none(tmp_path: Path) -> None:
    assert read_by_hand(tmp_path) == []


def test_equal_words_for_a_unit_are_saved_once(tmp_path: Path) -> None:
    first = save_by_hand(tmp_path, UNIT, "colours")
    assert save_by_hand(tmp_path, UNIT, " colours\n") == first
    others = [save_by_hand(tmp_path, ("layers.2.mlp", "-", 7), "colours"), save_by_hand(tmp_path, UNIT, "Colours")]
    assert read_by_hand(tmp_path) == [first, *others]


def test_several_writers_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name, "20"]) for name in ("a", "b", "c")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = read_by_hand(tmp_path)
    assert sorted(one.text for one in found) == sorted(
        f"{name} {number}" for name in ("a", "b", "c", "of both") for number in range(20)
    )
    assert not list((tmp_path / FOLDER).glob(".*"))


def test_threads_of_a_server_save_at_a_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        saved = list(pool.map(lambda number: save_by_hand(tmp_path, UNIT, f"words {number}"), range(40)))
    assert set(read_by_hand(tmp_path)) == set(saved)


def test_a_clock_that_was_set_back_keeps_the_order(tmp_path: Path) -> None:
    later = {"module": "layers.2.mlp", "index": 1, "polarity": "+", "text": "later", "written": "2999-01-01T00:00:00Z"}
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "29990101T000000000000-00000000.json").write_text(json.dumps(later))
    saved = save_by_hand(tmp_path, UNIT, "colours")
    assert [one.text for one in read_by_hand(tmp_path)] == ["later", "colours"]
    assert saved.name.startswith("29990101T000000000001-")


def test_a_writer_that_is_killed_leaves_no_half_file(tmp_path: Path) -> None:
    killed = """
import os, signal, sys
from pathlib import Path
from pipeline.storage import atomic_files, by_hand
atomic_files.flush = lambda path: os.kill(os.getpid(), signal.SIGKILL)
by_hand.save_by_hand(Path(sys.argv[1]), ("layers.2.mlp", "+", 7), "half")
"""
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / FOLDER).iterdir())) == 1
    assert read_by_hand(tmp_path) == []


WRONG = {
    "half of one": b'{"module": "layers.2.mlp", "ind',
    "a list": b"[]",
    "without words": b'{"module": "a", "index": 1, "polarity": "+", "text": "", "written": "2026-01-01T00:00:00Z"}',
    "another polarity": b'{"module": "a", "index": 1, "polarity": "x", "text": "a", "written": "2026-01-01T00:00:00Z"}',
    "another key": b'{"module": "a", "index": 1, "polarity": "+", "text": "a", "written": "2026-01-01T00:00:00Z", "b": 1}',
    "no time": b'{"module": "a", "index": 1, "polarity": "+", "text": "a", "written": "2026-01-01T00:00:00"}',
    "bytes that are no text": b"\xff\xfe",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_none_is_named(tmp_path: Path, name: str) -> None:
    save_by_hand(tmp_path, UNIT, "colours")
    (tmp_path / FOLDER / "20990101T000000000000-0.json").write_bytes(WRONG[name])
    for act in (lambda: read_by_hand(tmp_path), lambda: save_by_hand(tmp_path, UNIT, "more")):
        with pytest.raises(UserError, match=r"20990101T000000000000-0\.json is no explanation .* move it away"):
            act()


@pytest.mark.parametrize("text", ["", " \n\t", "\ud83d"])
def test_no_words_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"blank|Unicode"):
        save_by_hand(tmp_path, UNIT, text)
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        save_by_hand(tmp_path, UNIT, "colours")
    tmp_path.chmod(0o700)


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    saved = save_by_hand(tmp_path, UNIT, "colours")
    path = tmp_path / FOLDER / f"{saved.name}.json"
    path.rename(path.with_name("20000101T000000000000-1.json"))
    assert read_by_hand(tmp_path) == [
        WrittenExplanation("20000101T000000000000-1", "layers.2.mlp", 7, "+", "colours", saved.written)
    ]
