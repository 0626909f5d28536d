# mypy: disable-error-code="no-untyped-def,import-not-found,import-untyped,type-arg"
"""The top-k sequences of each unit on a GPU, in triton; see `numba_top_k` for what is kept.

A sequence that beats a unit's worst kept one is found, and its activations are copied, within one kernel: so the
program never has to know which those are.
"""

import triton
import triton.language as tl

INFINITY = tl.constexpr(float("inf"))
LATEST = tl.constexpr(2**62)
"""Comes after every seq_id but that of an empty slot."""


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
    """Insert a batch's sequences of one split into the slots first..end of a unit, as `numba_top_k.insert` does.

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
