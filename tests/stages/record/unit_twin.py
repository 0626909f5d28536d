"""The record stage by brute force: one unit after another, every value held in memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.evidence import SPLITS, split_of
from stages.settings import Record
from tests.stages.record.twin import TEXTS, Activations, Corpus


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
        return self.counted_on(range(len(self.sequences)))

    def counted_on(self, seq_ids: Iterable[int]) -> npt.NDArray[np.float64]:
        """Those of some sequences."""
        joined = np.concatenate([self.sequences[seq_id][self.positions(seq_id)] for seq_id in seq_ids])
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
        """Tokens in each bin that holds one, by a loop over the edges; see `sequences.in_histogram` for the sequences."""
        steps = [2.0**power * part for power in range(-21, 11) for part in (1, 1.25, 1.5, 1.75)][:-1]
        values = self.counted_on(s for s in range(len(self.sequences)) if s < 128 or s % 256 < 32)
        bins = {(-steps[0], steps[0]): int((np.abs(values) < steps[0]).sum())}
        for low, high in zip(steps, [*steps[1:], np.inf], strict=True):
            top, bottom = (max(values), min(values)) if high == np.inf else (high, -high)
            bins[(low, top)] = int(((values >= low) & (values < high)).sum())
            bins[(bottom, -low)] = int(((-values >= low) & (-values < high)).sum())
        return {edges: count for edges, count in bins.items() if count}

    def by_token(self) -> dict[int, list[int]]:
        """Activations on each token of the explain sequences, on the grid that sums are exact on."""
        seen: dict[int, list[int]] = {}
        for seq_id, sequence in enumerate(self.sequences):
            if split_of(seq_id) == "explain":
                ids = self.corpus.token_ids[seq_id]
                for position in self.positions(seq_id):
                    seen.setdefault(ids[position], []).append(round(float(sequence[position]) * 2**30))
        return dict(sorted(seen.items()))

    def token_means(self, least: int) -> list[tuple[int, int, float]]:
        """Token, count and mean activation of all that occur so often, and before them the others as one with the id -1."""
        seen = self.by_token()
        rare = [value for values in seen.values() if len(values) < least for value in values]
        kept = {-1: rare} if rare else {}
        kept |= {token: values for token, values in seen.items() if len(values) >= least}
        return [(token, len(values), sum(values) / 2**30 / len(values)) for token, values in kept.items()]

    def top_tokens(self, least: int, sign: int = 1) -> list[dict[str, Any]]:
        """Tokens of the explain sequences by falling (or rising) mean activation."""
        seen = self.by_token()
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
