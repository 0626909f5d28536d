# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""One pass over a batch of activations, in numba.

The activations lie in memory as (B, T, U). For each sequence, CHUNK positions and WIDE units at a time, the rows are read
once, in the order in which they lie in memory, and copied into pieces of SUB units, from which everything else is taken (see
`pieces`). Histograms are counted in 16 bits, which are moved to larger counts before they could overflow.

NaN and infinite activations are found by the sum of squares, which no finite float32 makes infinite; only then is the
sequence of that one unit gone through again.
"""

import numpy as np
from numba import njit

from stages.record.histogram import BINS
from stages.record.pieces import CHUNK, PIECES, SUB, fill_pieces, leave_out_nonfinite, take_piece
from stages.record.tokens import GRID_BITS
from stages.record.winners import TILE, keep_top

WIDE = PIECES * SUB
FULL = 2**16 - 1
"""Tokens that can be counted in 16 bits."""
I32, F32 = np.int32, np.float32
GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
"""Adding and taking away this float64 rounds to a multiple of 2**-GRID_BITS."""


@njit(cache=True, nogil=True)
def add_exactly(total, rest, value):
    """Add U float64 to the running pairs `total` + `rest` (two-sum)."""
    for u in range(total.size):
        new = total[u] + value[u]
        back = new - total[u]
        rest[u] += (total[u] - (new - back)) + (value[u] - back)
        total[u] = new


@njit(cache=True, nogil=True)
def add_sequence(extremes, power, start, stop, sums):
    """Add what was found of a sequence to the state of the units start..stop."""
    total, rest, minimum, maximum, above = sums[:5]
    for p in range(4):
        add_exactly(total[p, start:stop], rest[p, start:stop], power[p])
    least, most, fires = minimum[start:stop], maximum[start:stop], above[start:stop]
    low, high, number = extremes[0], extremes[1], extremes[2]
    for u in range(least.size):
        least[u] = low[u] if low[u] < least[u] else least[u]
        most[u] = high[u] if high[u] > most[u] else most[u]
        fires[u] += np.int64(I32(number[u]))


@njit(cache=True, nogil=True)
def make_room(fast, slow, waiting, coming):
    """Empty the 16-bit counts of some units before they could overflow. Returns the tokens in them, with those coming."""
    if waiting + coming <= FULL:
        return waiting + coming
    for u in range(fast.shape[0]):
        for k in range(BINS):
            slow[u, k] += fast[u, k]
            fast[u, k] = 0
    return coming


@njit(cache=True, nogil=True)
def take_sequence(sequence, counted, binned, first, last, threshold, sums, work):
    """Take the units first..last (WIDE at most) of a (T, U) sequence into `extremes` and `power` of their pieces."""
    extremes, power, pieces, piece_bits, bins = work
    extremes[:, 0], extremes[:, 1], extremes[:, 2] = np.inf, -np.inf, 0
    power[:] = 0.0
    length = sequence.shape[0]
    for t in range(0, length, CHUNK):
        end = min(t + CHUNK, length)
        rows = fill_pieces(sequence, first, last, t, end, counted, pieces)
        for k in range(-(-(last - first) // SUB)):
            start, stop = first + k * SUB, min(first + (k + 1) * SUB, last)
            counts = sums[6][start:stop]
            take_piece(pieces[k], piece_bits[k], bins, rows, extremes[k], power[k], counts, binned, threshold)


@njit(cache=True, nogil=True)
def settle_piece(sequence, bits, at, binned, start, stop, threshold, extremes, power, sums):
    """Add what was found of the units start..stop on a sequence to their state, without what is not finite."""
    for u in range(stop - start):
        if not np.isfinite(power[1, u]):
            column, column_bits = sequence[:, start + u], bits[:, start + u]
            counts, nonfinite = sums[6][start:stop], sums[5][start:stop]
            leave_out_nonfinite(column, column_bits, at, u, extremes, power, counts, nonfinite, binned, threshold)
    add_sequence(extremes, power, start, stop, sums)


@njit(cache=True, nogil=True)
def scan_batch(values, bits, batch, first, last, threshold, distinct, slots, sums, largest, smallest, pending):
    """Take the units first..last of a (B, T, U) batch into the running state of a module.

    Args:
        values: the activations.
        bits: the same memory as int32.
        batch: seq_ids, splits, counted, binned, keys, places and place_starts of `Batch`.
        sums: total and rest of the power sums, minimum, maximum, above, nonfinite, fast counts, histogram (see numba_sums).
        largest, smallest: the tops of the polarities + and - (see `winners`), without units where not recorded.
        pending: tokens in the fast counts so far.
    """
    seq_ids, splits, counted, binned, keys, places, starts = batch
    extremes, power = np.empty((PIECES, 3, SUB), F32), np.empty((PIECES, 4, SUB))
    pieces = np.zeros((PIECES, CHUNK + 1, SUB), F32)
    work = (extremes, power, pieces, pieces.view(I32), np.empty((CHUNK, SUB), np.uint8))
    room = (np.empty(SUB + 1, np.int64), np.empty((TILE, values.shape[1]), F32), np.zeros(1, F32))
    whole = values.shape[1] <= CHUNK
    for wide in range(first, last, WIDE):
        end, waiting = min(wide + WIDE, last), pending
        for b in range(values.shape[0]):
            at = places[starts[b] : starts[b + 1]]
            if binned[b]:
                waiting = make_room(sums[6][wide:end], sums[7][wide:end], waiting, at.size)
            take_sequence(values[b], counted[b], binned[b], wide, end, threshold, sums, work)
            about = (keys[b], seq_ids[b], splits[b], slots, distinct)
            for k in range(-(-(end - wide) // SUB)):
                start, stop = wide + k * SUB, min(wide + (k + 1) * SUB, end)
                settle_piece(values[b], bits[b], at, binned[b], start, stop, threshold, extremes[k], power[k], sums)
                low, high = extremes[k, 0, : stop - start], extremes[k, 1, : stop - start]
                if largest[0].shape[1]:
                    keep_top(pieces[k], whole, values[b], at, start, high, F32(1), about, largest, room)
                if smallest[0].shape[1]:
                    for u in range(low.size):
                        low[u] = -low[u]
                    keep_top(pieces[k], whole, values[b], at, start, low, F32(-1), about, smallest, room)


@njit(cache=True, nogil=True)
def add_tokens(rows, order, starts, table_rows, token_sums):
    """Add the activations of each token's occurrences to its row of the (V, U) sums.

    Args:
        rows: (N, U) activations of the N positions of a batch.
        order: positions that count, those of the same token together.
        starts: where in `order` each of the batch's distinct tokens starts; one more than distinct tokens.
        table_rows: the row of `token_sums` of each distinct token.
    """
    gathered = np.empty(rows.shape[1])
    for i in range(table_rows.size):
        gathered[:] = 0.0
        for j in range(starts[i], starts[i + 1]):
            row = rows[order[j]]
            for u in range(row.size):
                gathered[u] += (np.float64(row[u]) + GRID) - GRID
        target = token_sums[table_rows[i]]
        for u in range(gathered.size):
            target[u] += gathered[u]
