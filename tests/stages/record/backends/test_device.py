# mypy: disable-error-code="no-untyped-call"
"""Recording on a device: what is copied there and back, how often the program waits, and which types it takes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.subjects.activations import ModuleUnits, SparseActivations
from stages.record import scan
from stages.record.backends import device, torch_sums, triton_check
from stages.record.backends.contract import Accumulator
from stages.record.backends.device import DeviceBatch, DeviceVectors, put_batch
from stages.record.backends.numba.sparse_sums import SparseSums
from stages.record.recorded_batch import Batch, make_batch
from stages.record.scan import Recorder
from tests.stages.record.twin import SEQ_LEN, SMALL, Corpus, batches, make_corpus, open_sums, record, token_table
from tests.stages.record.ways import BACKENDS, GPU, KERNELS, Way, device_of

ON_DEVICE = BACKENDS[1:]
READERS = ("cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__")
WAITING = {"aten::nonzero", "aten::_local_scalar_dense", "aten::masked_select", "aten::equal", "aten::unique_dim"}


class Waits(TorchDispatchMode):
    """Counts the operations for which a program waits for a GPU, on any device: their results have to be known."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = args[1] if func._schema.name.startswith("aten::index") and len(args) > 1 else ()
        by_mask = isinstance(masks, (list, tuple)) and any(
            mask is not None and mask.dtype == torch.bool for mask in masks
        )
        self.count += by_mask or func._schema.name in WAITING
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Count them, and what reads a tensor from Python."""
    with Waits() as waits, monkeypatch.context() as patched:
        for name in READERS:
            original = getattr(torch.Tensor, name)

            def read(*args: Any, original: Any = original, **named: Any) -> Any:
                waits.count += 1
                return original(*args, **named)

            patched.setattr(torch.Tensor, name, read)
        yield waits


def prepared(corpus: Corpus, count: int) -> list[tuple[Batch, dict[str, Any]]]:
    """Batches as accumulators take them."""
    table = token_table(corpus, SMALL)
    return [(make_batch(batch, SMALL, table), found) for batch, found in batches(corpus, 0, count, SMALL)]


def state(corpus: Corpus, module: str, way: Way) -> Accumulator:
    return open_sums((corpus.widths[module], SEQ_LEN, len(token_table(corpus, SMALL).token_ids), SMALL, True), way)


@pytest.mark.parametrize(("way", "most"), [("torch", 1), pytest.param("triton", 0, marks=BACKENDS[2].marks)])
def test_the_program_waits_once_for_a_module_and_a_batch_at_most(
    way: Way, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus("random", sequences=40)
    sums = state(corpus, "layers.1.mlp", way)
    for batch, found in prepared(corpus, 40):
        x = found["layers.1.mlp"].to(device_of(way))
        with counted_waits(monkeypatch) as waits:
            sums.add(x, batch)
        assert waits.count <= most


def test_what_waits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(3.0)
    for wait in (
        lambda: x.nonzero(),
        lambda: x[x > 1],
        lambda: x.sum().item(),
        lambda: bool(x[0] > 0),
        lambda: x.cpu(),
    ):
        with counted_waits(monkeypatch) as waits:
            wait()
        assert waits.count >= 1


@pytest.mark.skipif(not GPU, reason="no GPU")
@pytest.mark.parametrize(("way", "most"), [("cuda", 1), pytest.param("triton", 0, marks=BACKENDS[2].marks)])
def test_cuda_reports_no_more_waits_than_that(way: Way, most: int) -> None:
    corpus = make_corpus("random", sequences=40)
    sums = state(corpus, "layers.1.mlp", way)
    batched = [(batch, found["layers.1.mlp"].cuda()) for batch, found in prepared(corpus, 40)]
    sums.add(batched[0][1], batched[0][0])
    for batch, x in batched[1:]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                sums.add(x, batch)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [f"{warning.filename}:{warning.lineno} {warning.message}" for warning in told]
        assert len([wait for wait in waits if "called a synchronizing" in wait]) <= most, waits


@pytest.mark.parametrize("way", BACKENDS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_activations_of_any_type_are_recorded_as_the_same_in_float32(kind: torch.dtype, way: Way) -> None:
    corpus = make_corpus("random", sequences=20)
    corpus.activations["layers.1.mlp"][3][2, 4] = (
        60_000  # whose square is beyond float16, and whose fourth power beyond float32
    )
    corpus.activations["layers.1.mlp"][5][2, 5] = -60_000
    one, other = (state(corpus, "layers.1.mlp", way) for _ in range(2))
    for batch, found in prepared(corpus, 20):
        x = found["layers.1.mlp"].to(device_of(way), kind)
        one.add(x, batch)
        other.add(x.float(), batch)
    same_state(one, other)
    assert np.isfinite(one.sums().power_sums).all()


def same_state(one: Accumulator, other: Accumulator) -> None:
    first, second = one.sums(), other.sums()
    for name in ("n_nonfinite", "minimum", "maximum", "above", "histogram", "token_sums", "power_sums"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    for polarity, top in first.top.items():
        used = np.isfinite(top.values)
        for name in ("values", "seq_ids", "keys"):
            np.testing.assert_array_equal(getattr(top, name)[used], getattr(second.top[polarity], name)[used])
        shown = [np.asarray(sums.top[polarity].vectors[slice(0, len(used))])[used][:, :3] for sums in (first, second)]
        np.testing.assert_array_equal(shown[0], shown[1])
    for seq_id, rows in one.uniform().items():
        np.testing.assert_array_equal(rows[0:7], other.uniform()[seq_id][0:7])


def test_units_that_are_worked_on_apart_come_out_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus("tied", sequences=30)
    together = record(corpus, backend="torch")
    monkeypatch.setattr(torch_sums, "CHUNK", 100)
    assert record(corpus, backend="torch") == together


@pytest.mark.parametrize("way", ON_DEVICE)
def test_a_batch_is_put_on_the_device_once_for_all_modules(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = make_corpus("random", sequences=20, widths=(3, 7, 5))
    put: list[torch.device] = []

    def counted(batch: Batch, where: torch.device) -> DeviceBatch:
        put.append(where)
        return put_batch(batch, where)

    monkeypatch.setattr(device, "put_batch", counted)
    record(corpus, backend=way)
    assert len(put) == 20 / SMALL.batch_size


def test_a_batch_on_a_device_is_the_batch() -> None:
    for batch, _ in prepared(make_corpus("random", sequences=20), 20):
        here = device.on_device(batch, torch.device("cpu"))
        assert device.on_device(batch, torch.device("cpu")) is here
        for field in fields(batch):
            if hasattr(here, field.name):
                np.testing.assert_array_equal(getattr(here, field.name).numpy(), getattr(batch, field.name))
        assert sorted(torch.cat(here.by_split).tolist()) == list(range(len(batch.splits)))
        assert here.binned_rows.tolist() == np.flatnonzero(batch.binned).tolist()


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not GPU, reason="no GPU"))])
def test_rows_on_a_device_are_read_in_any_pieces(where: str) -> None:
    rows = torch.arange(70.0, device=where).view(7, 2, 5)
    vectors = DeviceVectors(rows)
    for part in (slice(0, 3), slice(3, 6), slice(6, 9), slice(2, 4), slice(0, 7)):
        np.testing.assert_array_equal(vectors[part], rows.cpu().numpy()[part])


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not GPU, reason="no GPU"))])
def test_triples_may_be_overwritten_once_they_were_given(where: str) -> None:
    corpus = make_corpus("rare", sequences=20)
    width, found = corpus.widths["layers.1.mlp"], []
    for overwrite in (False, True):
        sums = SparseSums(width, SEQ_LEN, len(token_table(corpus, SMALL).token_ids), SMALL)
        for batch, activations in prepared(corpus, 20):
            rows = activations["layers.1.mlp"].to(where).nan_to_num(0).flatten(0, 1)
            positions, units = rows.nonzero(as_tuple=True)
            triples = SparseActivations((*batch.counted.shape, width), positions, units, rows[positions, units])
            sums.add(triples, batch)
            if overwrite:
                triples.values.fill_(1e6)
        found.append(sums)
    same_state(*found)


@pytest.mark.skipif(not GPU or not KERNELS, reason="no GPU with triton")
def test_activations_that_do_not_fit_on_the_gpu_lie_in_pinned_memory_and_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stages.record.backends import triton_sums

    corpus = make_corpus("tied", sequences=61)
    before = record(corpus, backend="triton")
    monkeypatch.setattr(triton_sums, "memory_for_vectors", lambda shape, _: torch.empty(shape, pin_memory=True))
    assert record(corpus, backend="triton") == before


def test_the_fastest_is_chosen_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, agrees, expected in ((True, True, "triton"), (True, False, "torch"), (False, True, "torch")):
        monkeypatch.setattr(scan, "find_spec", lambda _, there=there: there or None)
        monkeypatch.setattr(triton_check, "triton_agrees", lambda _, agrees=agrees: agrees)
        devices = [torch.device(name) for name in ("cuda", "mps", "cpu")]
        assert [scan.backend_for(there) for there in devices] == [expected, "torch", "numba"]


@pytest.mark.skipif(not GPU, reason="no GPU")
def test_a_recorder_takes_the_activations_of_a_gpu_by_itself() -> None:
    corpus = make_corpus("tied", sequences=30)
    modules = {name: ModuleUnits(width) for name, width in corpus.widths.items()}
    found = Recorder(modules, SMALL, token_table(corpus, SMALL), SEQ_LEN)
    for batch, activations in batches(corpus, 0, 30, SMALL):
        found.begin(batch)
        for name, values in activations.items():
            found.add(name, values.cuda())
    for module, state in found.accumulators.items():
        sums = state.sums()
        expected = open_sums(
            (corpus.widths[module], SEQ_LEN, len(token_table(corpus, SMALL).token_ids), SMALL), "numba"
        )
        for announced, activations in prepared(corpus, 30):
            expected.add(activations[module], announced)
        np.testing.assert_array_equal(sums.histogram, expected.sums().histogram)
        np.testing.assert_array_equal(np.sort(sums.top["+"].seq_ids), np.sort(expected.sums().top["+"].seq_ids))
