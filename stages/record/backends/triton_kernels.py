# mypy: disable-error-code="no-untyped-def,import-not-found,import-untyped,type-arg"
"""Recording a batch on a GPU, in triton: the statistics as `numba_measure` on a CPU, and the top-k as `numba_sums`.

A module's activations are read once, whatever their type, and become float32 and float64 only in registers.
What is multiplied by the number of units is int64: a batch can have more than 2**31 activations.

A sequence that beats a unit's worst kept one is found, and its activations are copied, within one kernel: so the
program never has to know which those are.
"""

import triton
import triton.language as tl

from stages.record import recorded_batch, unit_statistics

BINS = tl.constexpr(unit_statistics.BINS)
HALF = tl.constexpr(unit_statistics.BINS // 2)
OFFSET = tl.constexpr(unit_statistics.OFFSET)
SHIFT = tl.constexpr(unit_statistics.SHIFT)
GRID = tl.constexpr(recorded_batch.GRID)
"""Float32 holds it too, as which triton takes it."""
INFINITY = tl.constexpr(float("inf"))
LATEST = tl.constexpr(2**62)
"""Comes after every seq_id but that of an empty slot."""


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
        sums: (4, 2, U) float64 pairs, as in `unit_statistics`. ROWS sequences are added up, and then to them by two-sum.
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


@triton.jit
def copy_vectors(x, stride_b, stride_t, T, counted, source, slot, first, end, vectors, length, PIECE: tl.constexpr):
    """Write a unit's activations on the sequences that slots now hold, NaN where none counts; x and vectors are its own."""
    for k in range(first, end):
        b = tl.max(tl.where(slot == k, source, -1), axis=0).to(tl.int64)
        if b >= 0:
            for start in range(0, T, PIECE):
                t = start + tl.arange(0, PIECE)
                counts = tl.load(counted + b * T + t, mask=t < T, other=0) != 0
                value = tl.load(x + b * stride_b + t * stride_t, mask=counts, other=float("nan")).to(tl.float32)
                tl.store(vectors + k * length + t, value, mask=t < T)


@triton.jit
def candidates(p, u, s, rows, high, B, U, seq_ids, splits, worst, worst_id):
    """Which of some rows of a batch are of a split and beat the worst sequence that a unit has kept before this batch."""
    inside = rows < B
    new = tl.load(high + (p * B + rows) * U + u, mask=inside, other=-INFINITY)
    beats = (new > worst) | ((new == worst) & (tl.load(seq_ids + rows, mask=inside, other=LATEST) < worst_id))
    return beats & (new > -INFINITY) & (tl.load(splits + rows, mask=inside, other=-1) == s)


@triton.jit
def slot_for(new, new_seq, new_key, slot, own, end, value, seq, key, DISTINCT: tl.constexpr):
    """The slot of a new sequence as a mask: its twin's or the worst one; none where that one is better."""
    least = tl.min(value, axis=0)
    latest = tl.max(tl.where(own & (value == least), seq, -1), axis=0)
    chosen = tl.min(tl.where(own & (value == least) & (seq == latest), slot, end), axis=0)
    if DISTINCT:
        same = own & (value > -INFINITY) & (key == new_key)
        twin = tl.min(tl.where(same, slot, end), axis=0)
        chosen = tl.where(twin < end, twin, chosen)
    return own & (slot == chosen) & ((value < new) | ((value == new) & (seq > new_seq)))


@triton.jit
def keep_split(
    p, u, s, first, end, worst, worst_id, high, peaks, B, T, U, seq_ids, splits, keys, values, ids, kept_keys,
    DISTINCT: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Insert a batch's sequences of one split into the slots first..end of a unit, as `numba_sums.insert` does.

    Returns:
        The slots (SLOTS,), the row in the batch of what each now holds or -1, and the worst value and seq_id.
    """
    slot = first + tl.arange(0, SLOTS)
    own = slot < end
    value = tl.load(values + slot, mask=own, other=INFINITY)
    seq = tl.load(ids + slot, mask=own, other=-1)
    key = tl.load(kept_keys + slot, mask=own, other=0)
    source = tl.full([SLOTS], -1, tl.int32)
    for start in range(0, B, ROWS):
        rows = (start + tl.arange(0, ROWS)).to(tl.int64)
        waiting = candidates(p, u, s, rows, high, B, U, seq_ids, splits, worst, worst_id).to(tl.int32)
        while tl.max(waiting, axis=0) > 0:
            b = tl.min(tl.where(waiting > 0, rows, B), axis=0)
            waiting = tl.where(rows == b, 0, waiting)
            row = (p * B + b) * U + u
            new, new_seq = tl.load(high + row), tl.load(seq_ids + b)
            new_key = tl.load(keys + b * T + tl.load(peaks + row))
            mine = slot_for(new, new_seq, new_key, slot, own, end, value, seq, key, DISTINCT)
            value, seq, key = tl.where(mine, new, value), tl.where(mine, new_seq, seq), tl.where(mine, new_key, key)
            source = tl.where(mine, b.to(tl.int32), source)
    tl.store(values + slot, value, mask=own)
    tl.store(ids + slot, seq, mask=own)
    tl.store(kept_keys + slot, key, mask=own)
    least = tl.min(value, axis=0)
    return slot, source, least, tl.max(tl.where(own & (value == least), seq, -1), axis=0)


@triton.jit
def keep_top_k(
    x, stride_b, stride_t, stride_u, B, T, U, P, counted, seq_ids, splits, keys, high, peaks, slots, K,
    worst_value, worst_seq, values, ids, kept_keys, vectors, length,
    DISTINCT: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr, SLOTS: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """Insert the sequences of a batch where they beat a unit's worst kept one; the grid is (U, recorded polarities).

    Args:
        P: what to add to the grid's polarity: 1 where only '-' is recorded.
        high, peaks: as `measure` leaves them.
        slots: (SPLITS + 1,) where the slots of each split start, and the end.
        worst_value, worst_seq: (P, U, SPLITS); values, ids, kept_keys: (P, U, K); vectors: (P, U, K, length).
    """
    u = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * U + u
    p = tl.program_id(1) + P
    own = place * K
    for s in tl.static_range(SPLITS):
        first, end = tl.load(slots + s), tl.load(slots + s + 1)
        worst, worst_id = tl.load(worst_value + place * SPLITS + s), tl.load(worst_seq + place * SPLITS + s)
        some = 0
        for start in range(0, B, ROWS):
            rows = (start + tl.arange(0, ROWS)).to(tl.int64)
            beats = candidates(p, u, s, rows, high, B, U, seq_ids, splits, worst, worst_id)
            some += tl.sum(beats.to(tl.int32), axis=0)
        if some > 0:
            slot, source, least, latest = keep_split(
                p, u, s, first, end, worst, worst_id, high, peaks, B, T, U, seq_ids, splits, keys,
                values + own, ids + own, kept_keys + own, DISTINCT, ROWS, SLOTS,
            )  # fmt: skip
            tl.store(worst_value + place * SPLITS + s, least)
            tl.store(worst_seq + place * SPLITS + s, latest)
            to = vectors + own * length
            copy_vectors(x + u * stride_u, stride_b, stride_t, T, counted, source, slot, first, end, to, length, PIECE)
