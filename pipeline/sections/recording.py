"""The sections about what is recorded of the units, and which of it is kept as evidence."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections.base import Count, Positive, Section


class PerSplit(Section):
    explain: Count
    select: Count
    report: Count


class Record(Section):
    top: PerSplit = PerSplit(explain=20, select=10, report=10)
    """Sequences with the largest maxima kept for each unit, by split."""
    random: PerSplit = PerSplit(explain=20, select=10, report=10)
    """Uniformly drawn sequences kept for each unit, by split."""
    per_band: PerSplit = PerSplit(explain=2, select=0, report=0)
    """Sequences kept for each band between quantile boundaries, by split."""
    pool: Count = 96
    """Uniformly drawn sequences (all splits together) among which quantile bands look for their exemplars."""
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = [0.5, 0.9, 0.99, 0.999]
    """Boundaries of the bands, quantiles of the activations of the tokens, read from the histogram."""
    density_threshold: float = 0.0
    """A token counts as firing above this activation."""
    top_tokens: Count = 64
    """Tokens with the highest mean activation listed for each unit."""
    min_token_count: Positive = 3
    """A token is listed from this many occurrences on."""
    token_memory_mb: Positive = 1024
    """Memory for the sums of tokens x units; where it does not suffice, the rarest tokens are left out."""
    polarities: Annotated[list[Literal["+", "-"]], Field(min_length=1)] = ["+", "-"]
    """Which ends of the activations are evidence: + the largest ones, - the most negative ones. Units that are never
    negative have no -."""
    distinct: bool = True
    """Of sequences whose peak token and `distinct_context` tokens on either side are the same, `top` keeps the best alone."""
    distinct_context: Count = 3
    """Tokens on either side of the peak that are compared."""
    activation_bits: Annotated[int, Field(ge=2, le=24)] = 11
    """Significant bits kept of the activations in exemplars and negatives: 11, as float16 has, or up to the 24 of float32, which
    take twice the disk. Their range is float32's; maxima and all statistics are never rounded."""
    skip_positions: Count = 1
    """Positions at the start of a sequence left out of all statistics (attention sinks)."""
    skip_special: bool = True
    """Leave the tokenizer's special tokens (beginning, end, padding) out of all statistics, wherever they stand."""
    weight_tokens: Count = 10
    """Tokens listed for each unit by its weights: promoted and suppressed by what it writes, and those it reads; 0 for none."""
    negatives: Count = 0
    """Hard negatives looked for in each split for each unit to be explained: sequences near to its exemplars, by embedding
    and among the exemplars of similar units, on which it stays low; 0 for none."""
    attribution: Literal["none", "occlusion", "integrated_gradients"] = "none"
    """For the units to be explained, how much each token of an exemplar matters to the activation at its peak."""
    details: Literal["shown", "all"] = "shown"
    """Exemplars that attribution and pairs are found for: those that explainers are shown, which are the `top` ones of the explain split,
    or every one."""
    pairs: Count = 8
    """For attention heads to be explained, the strongest (from, to) pairs of positions listed for each exemplar."""
    batch_size: Positive = 32
    """Sequences in a forward pass."""
    shard_sequences: Positive = 1024
    """Sequences scanned by one shard, a multiple of batch_size."""
    shard_units: Positive = 512
    """Units merged by one shard."""

    @model_validator(mode="after")
    def _consistent(self) -> "Record":
        if self.shard_sequences % self.batch_size:
            raise ValueError(
                f"shard_sequences = {self.shard_sequences} is not a multiple of batch_size = {self.batch_size}; "
                "batches must not depend on the shards"
            )
        if self.quantiles != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles = {self.quantiles} must rise")
        return self
