"""The record stage by brute force: one unit after another, every value held in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.config import PerSplit, Record
from pipeline.evidence import SPLITS, split_of
from pipeline.subjects.activations import ModuleUnits, TokenBatch
from stages.record.merge import merge
from stages.record.numba_sums import NumbaSums
from stages.record.partials import BLOCK, BY_BLOCK, PARTIALS
from stages.record.recorder import Backend, Recorder
from stages.record.scan import padded_batches
from stages.record.sums import Accumulator, make_batch
from stages.record.tokens import TokenTable, count_tokens, cover_tokens
from stages.record.torch_sums import TorchSums

SEQ_LEN = 12
SMALL = Record(
    top=PerSplit(explain=3, select=2, report=1),
    random=PerSplit(explain=2, select=1, report=1),
    per_band=PerSplit(explain=2, select=1, report=0),
    pool=24,
    top_tokens=4,
    min_token_count=2,
    activation_bits=24,
    batch_size=4,
    shard_sequences=4,
)
TEXTS = {token: f" w{token}" for token in range(50)}

Activations = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """Sequences of T tokens at most, and the (T, U) activations of each module on each."""

    token_ids: list[list[int]]
    activations: dict[str, list[Activations]]
    special_ids: frozenset[int] = frozenset()

    @property
    def widths(self) -> dict[str, int]:
        return {name: values[0].shape[1] for name, values in self.activations.items()}


def make_corpus(
    kind: str, sequences: int = 61, widths: tuple[int, ...] = (3, 7), seed: int = 0, seq_len: int = SEQ_LEN
) -> Corpus:
    """A random corpus; `tied` and `rare` activations take few values, of `rare` ones the high seldom; `dead` are zero."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([seq_len, seq_len, seq_len - 3, 3], sequences)
    token_ids = [rng.integers(0, 15, length).tolist() for length in lengths]

    def draw(shape: tuple[int, int]) -> Activations:
        if kind == "tied":
            return rng.integers(-1, 3, shape).astype(np.float32)
        if kind == "rare":
            return np.floor(rng.exponential(0.6, shape)).astype(np.float32)
        if kind == "dead":
            return np.zeros(shape, np.float32)
        return (rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))).astype(np.float32)

    activations = {f"layers.{n}.mlp": [draw((length, width)) for length in lengths] for n, width in enumerate(widths)}
    return Corpus(token_ids, activations)


def token_table(corpus: Corpus, config: Record) -> TokenTable:
    batch = pa.record_batch(
        {
            "seq_id": pa.array(range(len(corpus.token_ids)), pa.int64()),
            "token_ids": pa.array(corpus.token_ids, pa.list_(pa.int32())),
        }
    )
    return cover_tokens(*count_tokens([batch], config, corpus.special_ids), sum(corpus.widths.values()), config)


def batches(corpus: Corpus, start: int, stop: int, config: Record) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
    """Batches of the sequences start..stop with the activations; the padding holds some that nothing may look at."""
    sequences = [(seq_id, corpus.token_ids[seq_id]) for seq_id in range(start, min(stop, len(corpus.token_ids)))]
    for batch in padded_batches(sequences, config.batch_size):
        found = {}
        for name, values in corpus.activations.items():
            padded = np.full((*batch.token_ids.shape, corpus.widths[name]), 1e9, np.float32)
            padded[:, ::2] = np.nan
            for row, seq_id in enumerate(batch.seq_ids):
                padded[row, : batch.lengths[row]] = values[seq_id]
            found[name] = torch.from_numpy(padded)
        yield batch, found


def scan_arrays(
    corpus: Corpus, start: int, stop: int, config: Record, backend: Backend = "numba"
) -> dict[str, pa.Table]:
    """Partials of the sequences start..stop."""
    modules = {name: ModuleUnits(width) for name, width in corpus.widths.items()}
    seq_len = max(len(ids) for ids in corpus.token_ids)
    recorder = Recorder(modules, config, token_table(corpus, config), seq_len, corpus.special_ids, backend)
    for batch, activations in batches(corpus, start, stop, config):
        recorder.begin(batch.token_ids, batch.lengths, batch.seq_ids)
        for name, values in activations.items():
            recorder.add(name, values)
    return whole_tables(recorder)


def whole_tables(recorder: Recorder) -> dict[str, pa.Table]:
    """The partial tables by name, each in one piece."""
    found = recorder.tables()
    return {table.name: pa.concat_tables([table.schema.empty_table(), *found[table.name]]) for table in PARTIALS}


def accumulate(
    corpus: Corpus, module: str, part: range, config: Record, backend: Backend = "numba", signed: bool = True
) -> Accumulator:
    """The state of one module after some sequences."""
    tokens = token_table(corpus, config)
    shape = (corpus.widths[module], max(len(ids) for ids in corpus.token_ids), len(tokens.token_ids), config, signed)
    found: Accumulator = NumbaSums(*shape) if backend == "numba" else TorchSums(*shape, torch.device("cpu"))
    for batch, activations in batches(corpus, part.start, part.stop, config):
        prepared = make_batch(batch.token_ids, batch.lengths, batch.seq_ids, config, tokens, corpus.special_ids)
        found.add(activations[module], prepared)
    return found


def rows_about(partial: dict[str, pa.Table], module: str, start: int, stop: int) -> dict[str, pa.Table]:
    """What of a partial a merge of some units is given."""
    found = {}
    for name, table in partial.items():
        first = start - start % BLOCK if name in BY_BLOCK else start
        index = table["index"].to_numpy()
        chosen = (np.asarray(table["module"].to_pylist(), object) == module) & (index >= first) & (index < stop)
        found[name] = table.filter(pa.array(chosen))
    return found


def record(
    corpus: Corpus,
    config: Record = SMALL,
    shard: int = 10_000,
    backend: Backend = "numba",
    order: int = 1,
    units: int = 512,
) -> dict[str, list[dict[str, Any]]]:
    """Scan in shards of some sequences and merge ranges of some units; rows by table."""
    starts = range(0, len(corpus.token_ids), shard)
    partials = [scan_arrays(corpus, start, start + shard, config, backend) for start in starts][::order]
    rows: dict[str, list[dict[str, Any]]] = {"units": [], "exemplars": []}
    for module, width in corpus.widths.items():
        for start in range(0, width, units):
            stop = min(start + units, width)
            about = [rows_about(partial, module, start, stop) for partial in partials]
            for name, table in merge(about, module, start, stop, config, TEXTS).items():
                rows[name] += table.to_pylist()
    return rows


@dataclass(frozen=True)
class Unit:
    """All that the corpus holds about one unit."""

    corpus: Corpus
    module: str
    index: int
    config: Record

    @property
    def sequences(self) -> list[Activations]:
        return [values[:, self.index] for values in self.corpus.activations[self.module]]

    def positions(self, seq_id: int) -> list[int]:
        """Positions of a sequence that count."""
        special = self.corpus.special_ids if self.config.skip_special else ()
        ids = self.corpus.token_ids[seq_id]
        return [t for t in range(self.config.skip_positions, len(ids)) if ids[t] not in special]

    def shown(self, seq_id: int) -> Activations:
        """The activations of a sequence, NaN at the positions that do not count."""
        shown = np.full(len(self.corpus.token_ids[seq_id]), np.nan, np.float32)
        for t in self.positions(seq_id):
            shown[t] = self.sequences[seq_id][t]
        return shown

    def counted(self) -> npt.NDArray[np.float64]:
        """Every finite activation at a position that counts."""
        values = [sequence[self.positions(seq_id)] for seq_id, sequence in enumerate(self.sequences)]
        joined = np.concatenate(values)
        return joined[np.isfinite(joined)].astype(np.float64)

    def peaks(self, polarity: str = "+") -> dict[int, tuple[int, float]]:
        """Position and value of each sequence's maximum, or with the polarity - its minimum."""
        found = {}
        for seq_id, sequence in enumerate(self.sequences):
            best = None
            for position in self.positions(seq_id):
                value = float(sequence[position])
                if np.isfinite(value) and (best is None or (value > best[1] if polarity == "+" else value < best[1])):
                    best = (position, value)
            if best is not None:
                found[seq_id] = best
        return found

    def top(self, polarity: str) -> dict[str, list[int]]:
        """By split, the seq_ids of the strongest sequences, of each neighbourhood of the peak only the strongest."""
        peaks = self.peaks(polarity)
        sign = 1 if polarity == "+" else -1
        found: dict[str, list[int]] = {}
        for split in SPLITS:
            ranked = sorted((s for s in peaks if split_of(s) == split), key=lambda s: (-sign * peaks[s][1], s))
            first: dict[Any, int] = {}
            for s in ranked:
                first.setdefault(self.neighbourhood(s, peaks[s][0]) if self.config.distinct else s, s)
            found[split] = list(first.values())[: getattr(self.config.top, split)]
        return found

    def neighbourhood(self, seq_id: int, peak: int) -> tuple[int | None, ...]:
        """The token ids around a position, None beyond the ends."""
        ids = dict(enumerate(self.corpus.token_ids[seq_id]))
        around = self.config.distinct_context
        return tuple(ids.get(t) for t in range(peak - around, peak + around + 1))

    def moments(self) -> tuple[float, float, float, float]:
        """Mean, variance, skewness and kurtosis by exact rational arithmetic."""
        values = [Fraction(value) for value in self.counted()]
        mean = sum(values, Fraction(0)) / len(values)
        second, third, fourth = (
            float(sum(((value - mean) ** power for value in values), Fraction(0)) / len(values)) for power in (2, 3, 4)
        )
        if second == 0:
            return float(mean), 0.0, np.nan, np.nan
        return float(mean), second, third / second**1.5, fourth / second**2

    def histogram(self) -> dict[tuple[float, float], int]:
        """Tokens in each bin that holds one, by a loop over the edges."""
        steps = [2.0**power * part for power in range(-21, 11) for part in (1, 1.25, 1.5, 1.75)][:-1]
        values = self.counted()
        bins = {(-steps[0], steps[0]): int((np.abs(values) < steps[0]).sum())}
        for low, high in zip(steps, [*steps[1:], np.inf], strict=True):
            top, bottom = (max(values), min(values)) if high == np.inf else (high, -high)
            bins[(low, top)] = int(((values >= low) & (values < high)).sum())
            bins[(bottom, -low)] = int(((-values >= low) & (-values < high)).sum())
        return {edges: count for edges, count in bins.items() if count}

    def top_tokens(self, least: int, sign: int = 1) -> list[dict[str, Any]]:
        """Tokens of the explain sequences by falling (or rising) mean activation, on the grid that sums are exact on."""
        seen: dict[int, list[int]] = {}
        for seq_id, sequence in enumerate(self.sequences):
            if split_of(seq_id) == "explain":
                ids = self.corpus.token_ids[seq_id]
                for position in self.positions(seq_id):
                    seen.setdefault(ids[position], []).append(round(float(sequence[position]) * 2**30))
        means = {token: sum(values) / 2**30 / len(values) for token, values in seen.items() if len(values) >= least}
        ranked = sorted(means, key=lambda token: (-sign * means[token], token))[: self.config.top_tokens]
        return [
            {"token_id": t, "token": TEXTS[t], "mean_activation": float(np.float32(means[t])), "count": len(seen[t])}
            for t in ranked
        ]

    def exemplars(self, about: dict[str, Any]) -> list[tuple[str, str, str, int, int]]:
        """(polarity, band, split, rank, seq_id) of the kept sequences, given the unit's row."""
        mirrored = [-boundary for boundary in about["quantile_boundaries_negative"] or []]
        positive = self.exemplars_of("+", about["quantile_boundaries"] or [])
        return positive + self.exemplars_of("-", mirrored)

    def exemplars_of(self, polarity: str, boundaries: list[float]) -> list[tuple[str, str, str, int, int]]:
        """The same of one polarity."""
        sign = 1 if polarity == "+" else -1
        peaks = {seq_id: sign * value for seq_id, (_, value) in self.peaks(polarity).items()}
        kept = []
        everything = range(len(self.sequences))
        random = {
            split: [s for s in everything if split_of(s) == split][: getattr(self.config.random, split)]
            for split in SPLITS
        }
        best = self.top(polarity)
        for split in SPLITS:
            kept += [(polarity, "top", split, rank, s) for rank, s in enumerate(best[split])]
        for split in SPLITS:
            taken, rank = {*random[split], *best[split]}, 0
            pool = [s for s in sorted(peaks) if s < self.config.pool and split_of(s) == split and s not in taken]
            for band in range(len(self.config.quantiles) + 1):
                inside = [s for s in pool if sum(peaks[s] >= boundary for boundary in boundaries) == band]
                for s in inside[: getattr(self.config.per_band, split)]:
                    kept.append((polarity, "quantile", split, rank, s))
                    rank += 1
        for split in SPLITS:
            usable = [s for s in random[split] if s in peaks]
            kept += [(polarity, "random", split, rank, s) for rank, s in enumerate(usable)]
        return kept
