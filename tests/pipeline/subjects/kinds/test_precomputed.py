"""Activations of another program: what is read is what was written, and what does not fit is told."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ModuleUnits, SparseActivations, TokenBatch
from pipeline.subjects.kinds.precomputed_activations import PrecomputedActivations, corpus_places
from pipeline.subjects.kinds.precomputed_files import (
    ActivationFile,
    activation_files,
    units_of_files,
    write_activations,
)
from pipeline.subjects.module_kinds import precomputed_folder
from stages.settings import SECTIONS

ROWS, COLUMNS, WIDTH = 10, 6, 4
Array = npt.NDArray[Any]


def arrays(seed: int, sparse: bool = False) -> tuple[Array, Array, Array]:
    """(N, T) token ids, (N, T, U) activations, (N,) lengths."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((ROWS, COLUMNS, WIDTH)).astype(np.float32)
    if sparse:
        values *= rng.random(values.shape) < 0.3
        values[3] = 0
    return rng.integers(0, 50, (ROWS, COLUMNS)), values, rng.integers(1, COLUMNS + 1, ROWS)


def as_triples(values: Array) -> dict[str, Array]:
    rows, columns, units = np.nonzero(values)
    return {"positions": rows * COLUMNS + columns, "units": units.copy(), "values": values[rows, columns, units]}


def read_rows(folder: Path, chosen: list[tuple[int, int]]) -> Any:
    """What a source gives for a batch of the (file, row) pairs, in that order."""
    files = activation_files(folder)
    places = [(files[file].path.name, row) for file, row in chosen]
    lengths = np.asarray([files[file].lengths[row] for file, row in chosen])
    ids = np.zeros((len(chosen), lengths.max()), np.int64)
    for place, (file, row) in enumerate(chosen):
        ids[place, : lengths[place]] = files[file].token_ids(row, row + 1)[0, : lengths[place]]
    received: dict[str, Any] = {}
    source = PrecomputedActivations({"precomputed:test": folder}, lambda: places)
    source.run(TokenBatch(ids, lengths, np.arange(len(chosen))), received.__setitem__)
    return received["precomputed:test"]


def densified(found: SparseActivations) -> Array:
    flat = torch.zeros(found.shape).flatten(0, 1)
    flat[found.positions, found.units] = found.values
    return flat.reshape(found.shape).numpy()


CHOSEN = [(1, 7), (0, 3), (0, 9), (1, 0), (0, 0)]


@pytest.mark.parametrize("sparse", [False, True])
def test_the_rows_of_a_batch_are_those_written(tmp_path: Path, sparse: bool) -> None:
    written = [arrays(number, sparse) for number in range(2)]
    for number, (ids, values, lengths) in enumerate(written):
        content = as_triples(values) if sparse else {"activations": values}
        file = tmp_path / f"{number}.safetensors"
        save_file({"token_ids": ids, "lengths": lengths, **content}, file, {"width": str(WIDTH)})
    found = read_rows(tmp_path, CHOSEN)
    if sparse:
        keys = found.positions * WIDTH + found.units
        assert (keys.diff() > 0).all()
        assert found.values.dtype == torch.float32
    dense = densified(found) if sparse else found.numpy()
    for place, (number, row) in enumerate(CHOSEN):
        length = written[number][2][row]
        np.testing.assert_array_equal(dense[place, :length], written[number][1][row, :length])
        assert not dense[place, length:].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.bool])
def test_any_type_of_real_numbers_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    ids, values, _ = arrays(0)
    tensor = (torch.from_numpy(values) * 20).to(dtype)
    write_activations(tmp_path, 0, ids.astype(np.int16), tensor)
    found = read_rows(tmp_path, [(0, 4), (0, 1)])
    assert found.dtype == torch.float32
    assert torch.equal(found, tensor[[4, 1]].float())


def test_the_writer_writes_what_is_read(tmp_path: Path) -> None:
    ids, values, lengths = arrays(0, sparse=True)
    triples = {name: torch.from_numpy(array) for name, array in as_triples(values).items()}
    sparse = SparseActivations(values.shape, **triples)
    dense_file = write_activations(tmp_path / "dense", 3, ids, values, lengths)
    sparse_file = write_activations(tmp_path / "sparse", 3, torch.from_numpy(ids), sparse, list(lengths))
    assert dense_file == tmp_path / "dense" / "00003.safetensors"
    assert ActivationFile.open(dense_file).units == ModuleUnits(WIDTH)
    assert ActivationFile.open(sparse_file).units == ModuleUnits(WIDTH, sparse=True)
    chosen = [(0, row) for row in range(ROWS)]
    np.testing.assert_array_equal(
        densified(read_rows(tmp_path / "sparse", chosen)), read_rows(tmp_path / "dense", chosen).numpy()
    )


def test_units_are_signed_unless_every_file_says_that_nothing_is_negative(tmp_path: Path) -> None:
    ids, values, _ = arrays(0)
    write_activations(tmp_path, 0, ids, np.abs(values))
    assert units_of_files(activation_files(tmp_path)) == ModuleUnits(WIDTH, signed=False)
    save_file({"token_ids": ids, "activations": np.abs(values)}, tmp_path / "1.safetensors")
    assert units_of_files(activation_files(tmp_path)).signed


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    ids, values, _ = arrays(0)
    with pytest.raises(UserError, match="activations of shape"):
        write_activations(tmp_path, 0, ids[:-1], values)
    assert not list(tmp_path.iterdir())


IDS, VALUES, LENGTHS = arrays(0)
TRIPLES = as_triples(arrays(0, sparse=True)[1])
WIDE = {"width": str(WIDTH)}


@pytest.mark.parametrize(
    ("content", "metadata", "says"),
    [
        ({"activations": VALUES}, {}, "activations and no token_ids"),
        ({"token_ids": IDS}, {}, "no positions, units, values"),
        ({"token_ids": IDS.astype(float), "activations": VALUES}, {}, "token_ids of type F64"),
        ({"token_ids": IDS[0], "activations": VALUES}, {}, r"token_ids of shape \[6\]"),
        ({"token_ids": IDS, "activations": VALUES[0]}, {}, r"activations of shape \[6, 4\].*\(10, 6, U\)"),
        ({"token_ids": IDS[:, :5].copy(), "activations": VALUES}, {}, "activations of shape"),
        ({"token_ids": IDS, "activations": VALUES.astype(np.complex64)}, {}, "activations of type C64"),
        ({"token_ids": IDS, "activations": VALUES, "lengths": LENGTHS[1:].copy()}, {}, "lengths of shape"),
        ({"token_ids": IDS, "activations": VALUES, "lengths": LENGTHS + 6}, {}, r"lengths from \d+ to \d+; expected 0 to 6"),
        ({"token_ids": IDS, **TRIPLES}, {}, '"width" = None'),
        ({"token_ids": IDS, **TRIPLES}, {"width": "many"}, "'many'"),
        ({"token_ids": IDS, **TRIPLES, "units": TRIPLES["units"][1:].copy()}, WIDE, "arrays of shapes"),
    ],
)  # fmt: skip
def test_a_file_of_another_layout_is_told(
    tmp_path: Path, content: dict[str, Array], metadata: dict[str, str], says: str
) -> None:
    save_file(content, tmp_path / "0.safetensors", metadata)
    with pytest.raises(UserError, match=rf"0\.safetensors.*{says}"):
        activation_files(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"positions": TRIPLES["positions"][::-1].copy()}, "do not rise"),
        ({"positions": TRIPLES["positions"] + 40}, "lie outside"),
        ({"positions": TRIPLES["positions"] - 40}, "lie outside"),
        ({"units": TRIPLES["units"] + 3}, "expected units 0 to 3"),
        ({"units": TRIPLES["units"] * 0}, "a unit twice at one position"),
    ],
)
def test_triples_that_make_no_sense_are_told(tmp_path: Path, changes: dict[str, Array], says: str) -> None:
    save_file({"token_ids": IDS, **TRIPLES, **changes}, tmp_path / "0.safetensors", WIDE)
    with pytest.raises(UserError, match=says):
        read_rows(tmp_path, [(0, row) for row in range(ROWS)])


def test_a_folder_without_files_or_with_other_units_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no \.safetensors files"):
        activation_files(tmp_path)
    write_activations(tmp_path, 0, IDS, VALUES)
    write_activations(tmp_path, 1, IDS, VALUES[:, :, :2])
    with pytest.raises(UserError, match=r"2 dense units and 00000\.safetensors has 4 dense units"):
        activation_files(tmp_path)


def test_a_file_that_is_no_safetensors_is_told(tmp_path: Path) -> None:
    (tmp_path / "0.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="no safetensors file that can be read"):
        activation_files(tmp_path)


def source_of(*folders: Path) -> PrecomputedActivations:
    places = [("00000.safetensors", row) for row in range(ROWS)]
    return PrecomputedActivations({f"precomputed:{folder.name}": folder for folder in folders}, lambda: places)


def test_several_folders_over_the_same_tokens_are_read_together(tmp_path: Path) -> None:
    write_activations(tmp_path / "a", 0, IDS, VALUES)
    write_activations(tmp_path / "b", 0, IDS, VALUES[:, :, :2] + 1)
    received: dict[str, torch.Tensor] = {}
    batch = TokenBatch(IDS[:3], np.full(3, COLUMNS), np.arange(3))
    source_of(tmp_path / "a", tmp_path / "b").run(batch, received.__setitem__)
    np.testing.assert_array_equal(received["precomputed:a"], VALUES[:3])
    np.testing.assert_array_equal(received["precomputed:b"], VALUES[:3, :, :2] + 1)


def test_other_tokens_than_the_corpus_has_are_refused(tmp_path: Path) -> None:
    write_activations(tmp_path / "a", 0, IDS, VALUES)
    write_activations(tmp_path / "b", 0, np.where(np.arange(ROWS)[:, None] == 2, IDS + 1, IDS), VALUES)
    source = source_of(tmp_path / "a", tmp_path / "b")
    batch = TokenBatch(IDS[:2], np.full(2, COLUMNS), np.arange(2))
    source.run(batch, lambda *_: None)
    with pytest.raises(UserError, match=r"precomputed:b: row 2 of .*other tokens"):
        source.run(TokenBatch(IDS[2:3], np.full(1, COLUMNS), np.arange(2, 3)), lambda *_: None)
    with pytest.raises(UserError, match=r"precomputed:a: row 0 of .*other tokens"):
        source.run(TokenBatch(IDS[:1, :4], np.full(1, 4), np.arange(1)), lambda *_: None)


def test_a_row_that_a_folder_does_not_have_is_told(tmp_path: Path) -> None:
    write_activations(tmp_path / "a", 0, IDS[:5], VALUES[:5])
    with pytest.raises(UserError, match=r"precomputed:a has no row 7 of 00000\.safetensors"):
        source_of(tmp_path / "a").run(TokenBatch(IDS[7:8], np.full(1, 6), np.asarray([7])), lambda *_: None)


def write_corpus(root: Path, doc_ids: list[str]) -> Tables:
    rows = {
        "seq_id": range(len(doc_ids)),
        "split": ["explain"] * len(doc_ids),
        "doc_id": doc_ids,
        "start": [0] * len(doc_ids),
        "token_ids": [[1]] * len(doc_ids),
        "tokens": [["a"]] * len(doc_ids),
    }
    (root / CORPUS.path).mkdir(parents=True)
    pq.write_table(pa.table(rows, schema=CORPUS.schema), root / CORPUS.path / "part-00000.parquet")
    return Tables(root)


def test_places_come_from_the_corpus(tmp_path: Path) -> None:
    places = corpus_places(write_corpus(tmp_path, ["b.safetensors:12", "a:1.safetensors:0", "b.safetensors:3"]))
    assert places == [("b.safetensors", 12), ("a:1.safetensors", 0), ("b.safetensors", 3)]


@pytest.mark.parametrize("doc_ids", [["texts/a.jsonl:3"], []])
def test_another_corpus_has_no_places(tmp_path: Path, doc_ids: list[str]) -> None:
    with pytest.raises(UserError, match=r'corpus\.source = "precomputed:NAME"'):
        corpus_places(write_corpus(tmp_path, doc_ids))


def test_what_the_data_card_says_of_writing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (
        Path("outputs/README.md").read_text(encoding="utf-8").split("## Precomputed activations")[1].split("\n## ")[0]
    )
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", section, flags=re.S)
    exec(code, {"batches": [(IDS, VALUES, LENGTHS), (IDS + 1, VALUES, LENGTHS)]})
    [settings] = re.findall(r"```toml\n(.*?)```", section, flags=re.S)
    config = parse_config({"run": {"name": "r"}, **tomllib.loads(settings)}, "card.toml", SECTIONS)
    files = activation_files(precomputed_folder(config, config.corpus.source))
    assert [file.path.name for file in files] == ["00000.safetensors", "00001.safetensors"]
    np.testing.assert_array_equal(files[1].token_ids(0, ROWS), IDS + 1)
