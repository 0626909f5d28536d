# mypy: disable-error-code="no-untyped-def,import-not-found,import-untyped,type-arg"
"""The statistics of a batch on a GPU, in triton: the same as `numba_measure` on a CPU.

A module's activations are read once, whatever their type, and become float32 and float64 only in registers.
What is multiplied by the number of units is int64: a batch can have more than 2**31 activations.
"""

import triton
import triton.language as tl

from stages.record import histogram, token_table

BINS = tl.constexpr(histogram.BINS)
HALF = tl.constexpr(histogram.BINS // 2)
OFFSET = tl.constexpr(histogram.OFFSET)
SHIFT = tl.constexpr(histogram.SHIFT)
GRID = tl.constexpr(token_table.GRID)
"""Float32 holds it too, as which triton takes it."""
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def larger(value, finite, t, high, at):
    """The largest value so far and its first position, with the values at position t."""
    more = finite & (value > high)
    return tl.where(more, value, high), tl.where(more, t, at)


@triton.jit
def measure(
    x, stride_b, stride_t, stride_u, T, U, counted, threshold, power, highs, peaks, above, nonfinite,
    BLOCK: tl.constexpr, UNROLLED: tl.constexpr,
):  # fmt: skip
    """What a sequence tells of BLOCK units; the grid is (B, blocks of units).

    Args:
        x: (B, T, U) activations, with the strides of each dimension.
        counted: (B, T) of a DeviceBatch.
        power: (B, 4, U) float64, power sums of each sequence.
        highs, peaks: (2, B, U) largest x and -x, -inf without any, and their first positions.
        above, nonfinite: (U,) int64 running counts.
    """
    b = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = unit < U
    start = x + b * stride_b + unit.to(tl.int64) * stride_u
    first = tl.zeros([BLOCK], tl.float64)
    second, third, fourth = first, first, first
    high, high_at = tl.full([BLOCK], -INFINITY, tl.float32), tl.zeros([BLOCK], tl.int32)
    low, low_at, firing, broken = high, high_at, high_at, high_at
    for begin in range(0, T, UNROLLED):
        for i in tl.static_range(UNROLLED):
            t = begin + i
            counts = tl.broadcast_to(tl.load(counted + b * T + t, mask=t < T, other=0), [BLOCK]) != 0
            value = tl.load(start + tl.minimum(t, T - 1) * stride_t, mask=real, other=0.0).to(tl.float32)
            finite = counts & (tl.abs(value) < INFINITY)
            broken += (counts & (finite == 0)).to(tl.int32)
            firing += (finite & (value > threshold)).to(tl.int32)
            high, high_at = larger(value, finite, t, high, high_at)
            low, low_at = larger(-value, finite, t, low, low_at)
            wide = tl.where(finite, value, 0.0).to(tl.float64)
            square = wide * wide
            first += wide
            second += square
            third += wide * square
            fourth += square * square
    out = power + b * 4 * U + unit
    tl.store(out, first, mask=real)
    tl.store(out + U, second, mask=real)
    tl.store(out + 2 * U, third, mask=real)
    tl.store(out + 3 * U, fourth, mask=real)
    other = (tl.num_programs(0) + b) * U + unit
    tl.store(highs + b * U + unit, high, mask=real)
    tl.store(peaks + b * U + unit, high_at, mask=real)
    tl.store(highs + other, low, mask=real)
    tl.store(peaks + other, low_at, mask=real)
    tl.atomic_add(above + unit, firing.to(tl.int64), mask=real & (firing > 0), sem="relaxed")
    tl.atomic_add(nonfinite + unit, broken.to(tl.int64), mask=real & (broken > 0), sem="relaxed")


@triton.jit
def count_bins(x, stride_b, stride_t, stride_u, T, U, counted, rows, bins, BLOCK: tl.constexpr):
    """Count some sequences in the (U, BINS) histograms; the grid is (sequences, blocks of units).

    Args:
        rows: `binned_rows` of a DeviceBatch.
    """
    b = tl.load(rows + tl.program_id(0))
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start = x + b * stride_b + unit.to(tl.int64) * stride_u
    for t in range(T):
        if tl.load(counted + b * T + t) != 0:
            value = tl.load(start + t * stride_t, mask=unit < U, other=INFINITY).to(tl.float32)
            bits = value.to(tl.int32, bitcast=True)
            size = ((bits & 0x7FFFFFFF) >> SHIFT) - OFFSET
            size = tl.minimum(tl.maximum(size, 0), HALF - 1)
            place = unit.to(tl.int64) * BINS + (HALF + (size ^ (bits >> 31)))
            tl.atomic_add(bins + place, 1, mask=tl.abs(value) < INFINITY, sem="relaxed")


@triton.jit
def fold(power, highs, B, U, sums, minimum, maximum, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Add the sequences of a batch to the running sums; the grid is (4 powers, blocks of units).

    Args:
        sums: (4, 2, U) float64 pairs, as in `moments`. ROWS sequences are added up, and then to them by two-sum.
        minimum, maximum: (U,) running extremes.
    """
    p = tl.program_id(0)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = unit < U
    own = sums + p * 2 * U + unit
    total, rest = tl.load(own, mask=real, other=0.0), tl.load(own + U, mask=real, other=0.0)
    most = tl.full([BLOCK], -INFINITY, tl.float32)
    for start in range(0, B, ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)
        inside = (row < B)[:, None] & real[None, :]
        new = tl.sum(tl.load(power + (row[:, None] * 4 + p) * U + unit[None, :], mask=inside, other=0.0), axis=0)
        both = total + new
        back = both - total
        rest += (total - (both - back)) + (new - back)
        total = both
        if p < 2:  # largest x, largest -x
            ends = tl.load(highs + (p * B + row[:, None]) * U + unit[None, :], mask=inside, other=-INFINITY)
            most = tl.maximum(most, tl.max(ends, axis=0))
    tl.store(own, total, mask=real)
    tl.store(own + U, rest, mask=real)
    if p == 0:
        tl.store(maximum + unit, tl.maximum(tl.load(maximum + unit, mask=real), most), mask=real)
    if p == 1:
        tl.store(minimum + unit, tl.minimum(tl.load(minimum + unit, mask=real), -most), mask=real)


@triton.jit
def add_tokens(x, stride_b, stride_t, stride_u, T, U, positions, starts, rows, sums, BLOCK: tl.constexpr):
    """Add the activations of each token's occurrences to its row of the (V, U) sums; the grid is (tokens, blocks of units).

    Args:
        positions, starts, rows: `positions`, `starts` and `token_rows` of a DeviceBatch.
    """
    i = tl.program_id(0)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = unit < U
    found = tl.zeros([BLOCK], tl.float64)
    for j in range(tl.load(starts + i), tl.load(starts + i + 1)):
        at = tl.load(positions + j)
        place = (at // T) * stride_b + (at % T) * stride_t + unit.to(tl.int64) * stride_u
        value = tl.load(x + place, mask=real, other=0.0).to(tl.float32).to(tl.float64)
        found += (value + GRID) - GRID
    target = sums + tl.load(rows + i) * U + unit
    tl.store(target, tl.load(target, mask=real) + found, mask=real)
