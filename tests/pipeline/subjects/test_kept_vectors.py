"""Embeddings of a list of texts are worked out by one process, and read by the others."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.subjects.embedder import Embedder, load_embedder
from pipeline.subjects.kept_vectors import kept_vectors

WORDS = ["ship", "harbour", "bread", "ship", "1984", "a red fox"]
EMBEDDED = """
import sys
from pipeline.subjects.embedder import Embedder, load_embedder
from pipeline.subjects.kept_vectors import kept_vectors
embed = Embedder.encode
def counted(self, texts):
    print("embedded", len(texts))
    return embed(self, texts)
Embedder.encode = counted
print(kept_vectors(load_embedder(), sys.argv[1:]).tobytes().hex())
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files are."""
    monkeypatch.setenv("NEUROGLOSS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vectors"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were embedded, at each call."""
    calls: list[int] = []
    encode = Embedder.encode

    def counted(self: Embedder, texts: list[str]) -> object:
        calls.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(Embedder, "encode", counted)
    return calls


def files(kept: Path) -> list[Path]:
    return sorted(kept.glob("*.safetensors"))


def test_a_second_process_embeds_nothing(kept: Path) -> None:
    command = [sys.executable, "-c", EMBEDDED, *WORDS]
    first, later = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "embedded" in first
    assert first.split("\n")[-2:] == later.split("\n")
    assert later.strip() == load_embedder().encode(WORDS).tobytes().hex()
    assert len(files(kept)) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other"])
def test_a_damaged_file_is_made_again(kept: Path, embedded: list[int], damage: str) -> None:
    embedder = load_embedder()
    wanted = kept_vectors(embedder, WORDS)
    [file] = files(kept)
    content = file.read_bytes()
    changed = bytearray(content)
    changed[-3] ^= 1
    if damage == "other":
        kept_vectors(embedder, WORDS[1:])
        content = next(other for other in files(kept) if other != file).read_bytes()
    file.write_bytes(
        {"cut": content[:-9], "flipped": bytes(changed), "empty": b"", "text": b"x" * 99, "other": content}[damage]
    )
    embedded.clear()
    np.testing.assert_array_equal(kept_vectors(embedder, WORDS), wanted)
    np.testing.assert_array_equal(kept_vectors(embedder, WORDS), wanted)
    assert embedded == [len(WORDS)]


def test_other_texts_another_order_and_another_embedder_have_files_of_their_own(
    kept: Path, embedded: list[int]
) -> None:
    embedder = load_embedder()
    joined = [WORDS[0] + WORDS[1], *WORDS[2:]]
    for number, texts in enumerate((WORDS, WORDS[:-1], WORDS[::-1], joined), 1):
        np.testing.assert_array_equal(kept_vectors(embedder, texts), embedder.encode(texts))
        assert len(files(kept)) == number
    embedded.clear()
    kept_vectors(replace(embedder, revision="another"), WORDS)
    assert (len(files(kept)), embedded) == (5, [len(WORDS)])


def test_where_nothing_can_be_written_texts_are_embedded_every_time(
    kept: Path, embedded: list[int], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    for _ in range(2):
        assert kept_vectors(load_embedder(), WORDS).shape == (len(WORDS), 384)
    assert len(embedded) == 2
