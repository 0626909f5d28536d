# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""One pass over a batch of activations, in numba.

The activations lie in memory as (B, T, U), or still have to be computed there, as act(gate) * up. For each sequence,
CHUNK positions and WIDE units at a time, the rows are read once, in the order in which they lie in memory, finished where they
have to be, and copied into pieces of SUB units, which stay in the cache. A piece is then taken eight rows at a time, so that the running
extremes and power sums are loaded and stored an eighth as often. The histogram's bins, a byte each, are noted on the
way and counted afterwards, in 16 bits, which are moved to larger counts before they could overflow.

Loops over units are vectorised: their length is fixed, or they are written over equally indexed one-dimensional views,
because an index that the compiler cannot prove to be positive keeps it from that. Power sums are added up in the order of
the positions, in float64.

NaN and infinite activations are found by the sum of squares, which no finite float32 makes infinite; only then is the
sequence of that one unit gone through again.
"""

import numpy as np
from numba import njit

from pipeline.subjects.fast_activations import finish_row
from stages.record.histogram import BINS, OFFSET, SHIFT
from stages.record.tokens import GRID_BITS
from stages.record.winners import TILE, keep_top

SUB = 256
"""Units of a piece, whose running values (11 KiB) stay in the innermost cache."""
PIECES = 6
CHUNK = 64
"""Positions of a piece. All pieces together (384 KiB) stay in the second cache."""
ROWS = 8
COUNTED = 64
"""Units whose histograms stay in the innermost cache while a piece is counted; a part of SUB."""
FULL = 2**16 - 1
"""Tokens that can be counted in 16 bits."""
NO_ACTIVATION = -1
I32, F32, F64, ONE16 = np.int32, np.float32, np.float64, np.uint16(1)
LAST = I32(BINS // 2 - 1)
ABOVE_ZERO = I32(BINS // 2)
MAGNITUDE = I32(0x7FFFFFFF)
FIRST = I32(OFFSET)
SHIFT32 = I32(SHIFT)
SIGN = I32(31)
GRID = 1.5 * 2.0 ** (52 - GRID_BITS)
"""Adding and taking away this float64 rounds to a multiple of 2**-GRID_BITS."""


def _taking(rows):
    """A function that takes `rows` rows (rows, SUB) of a piece into the running values of its units."""

    @njit(cache=True, nogil=True, fastmath={"contract"})
    def take(piece, bits, bins, extremes, power, binned, threshold):
        low, high, above = extremes[0], extremes[1], extremes[2]
        for u in range(SUB):
            least, most, fires = low[u], high[u], above[u]
            for j in range(rows):
                x = piece[j, u]
                most = x if x > most else most
                least = x if x < least else least
                fires += F32(1) if x > threshold else F32(0)
            low[u], high[u], above[u] = least, most, fires
        s1, s2, s3, s4 = power[0], power[1], power[2], power[3]
        for u in range(SUB):
            first, second, third, fourth = s1[u], s2[u], s3[u], s4[u]
            for j in range(rows):
                x = F64(piece[j, u])
                square = x * x
                first += x
                second += square
                third += x * square
                fourth += square * square
            s1[u], s2[u], s3[u], s4[u] = first, second, third, fourth
        if binned:
            for j in range(rows):
                find_bins(bits[j], bins[j])

    return take


@njit(cache=True, nogil=True)
def find_bins(bits, bins):
    """Histogram bins of one row of activations, from their bits."""
    for u in range(bits.size):
        magnitude = I32(I32((bits[u] & MAGNITUDE) >> SHIFT32) - FIRST)
        magnitude = magnitude if magnitude > I32(0) else I32(0)
        magnitude = magnitude if magnitude < LAST else LAST
        negative = I32(bits[u] >> SIGN)
        bins[u] = np.uint8(I32(ABOVE_ZERO + I32(magnitude ^ negative)))


take_rows, take_row = _taking(ROWS), _taking(1)


@njit(cache=True, nogil=True)
def count_bins(bins, histogram):
    """Count one row of U bins in the (U, STRIDE) histograms."""
    for u in range(histogram.shape[0]):
        histogram[u, bins[u]] += ONE16


@njit(cache=True, nogil=True)
def take_piece(piece, bits, bins, count, extremes, power, histogram, binned, threshold):
    """Take `count` rows of a piece in, and where `binned` count the bins of as many units as `histogram` has."""
    done = 0
    while done + ROWS <= count:
        stop = done + ROWS
        take_rows(piece[done:stop], bits[done:stop], bins[done:stop], extremes, power, binned, threshold)
        done = stop
    while done < count:
        take_row(
            piece[done : done + 1], bits[done : done + 1], bins[done : done + 1], extremes, power, binned, threshold
        )
        done += 1
    if not binned:
        return
    for first in range(0, histogram.shape[0], COUNTED):
        last = min(first + COUNTED, histogram.shape[0])
        for i in range(count):
            count_bins(bins[i, first:last], histogram[first:last])


@njit(cache=True, nogil=True)
def leave_out_nonfinite(column, bits, places, u, extremes, power, histogram, nonfinite, binned, threshold):
    """Do unit u's sequence again, `column` of which the positions `places` count, without what is not finite."""
    least, most, fires, one_bin = F32(np.inf), F32(-np.inf), F32(0), np.empty(1, np.uint8)
    power[:, u] = 0.0
    for t in places:
        x = column[t]
        if np.isfinite(x):
            least, most = min(least, x), max(most, x)
            fires += F32(1) if x > threshold else F32(0)
            square = F64(x) * F64(x)
            power[0, u] += F64(x)
            power[1, u] += square
            power[2, u] += F64(x) * square
            power[3, u] += square * square
        else:
            nonfinite[u] += 1
            if binned:
                find_bins(bits[t : t + 1], one_bin)
                histogram[u, one_bin[0]] -= ONE16
    extremes[0, u], extremes[1, u], extremes[2, u] = least, most, fires


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
def fill_pieces(sequence, up, activation, first, last, begin, end, counted, pieces):
    """Copy the rows begin..end that count, units first..last, into the pieces; finish them before where that is wanted.

    Returns how many rows there are.
    """
    rows = 0
    for t in range(begin, end):
        for k in range(pieces.shape[0]):
            start, stop = first + k * SUB, min(first + (k + 1) * SUB, last)
            if start >= stop:
                break
            if activation != NO_ACTIVATION:
                other = up[t, start:stop] if up.shape[1] else up[t]
                finish_row(activation, sequence[t, start:stop], other, pieces[k, rows])
            elif counted[t]:
                source, target = sequence[t, start:stop], pieces[k, rows]
                for u in range(source.size):
                    target[u] = source[u]
        rows += 1 if counted[t] else 0
    return rows


@njit(cache=True, nogil=True)
def scan_batch(
    values, bits, up, activation, batch, first, last, threshold, distinct, slots, sums, largest, smallest, pending
):
    """Take the units first..last of a (B, T, U) batch into the running state of a module.

    Args:
        values: the activations, or the gate that becomes them.
        bits: the same memory as int32.
        up: what the activated gate is multiplied by, (B, T, U), or (B, T, 0) for nothing.
        activation: as in `fast_activations`, or NO_ACTIVATION where `values` are finished.
        batch: seq_ids, splits, counted, binned, keys, places and place_starts of `Batch`.
        sums: total and rest of the power sums, minimum, maximum, above, nonfinite, fast counts, histogram (see numba_sums).
        largest, smallest: the tops of the polarities + and - (see `winners`), without units where not recorded.
        pending: tokens in the fast counts so far.
    """
    seq_ids, splits, counted, binned, keys, places, starts = batch
    extremes, power = np.empty((PIECES, 3, SUB), F32), np.empty((PIECES, 4, SUB))
    pieces, bins = np.zeros((PIECES, CHUNK + 1, SUB), F32), np.empty((CHUNK, SUB), np.uint8)
    piece_bits, negated = pieces.view(I32), np.empty(SUB, F32)
    length = values.shape[1]
    room = (np.empty(SUB + 1, np.int64), np.empty((TILE, length), F32), np.zeros(1, F32))
    for wide in range(first, last, PIECES * SUB):
        end = min(wide + PIECES * SUB, last)
        waiting = pending
        for b in range(values.shape[0]):
            extremes[:, 0], extremes[:, 1], extremes[:, 2] = np.inf, -np.inf, 0
            power[:] = 0.0
            at = places[starts[b] : starts[b + 1]]
            if binned[b]:
                waiting = make_room(sums[6][wide:end], sums[7][wide:end], waiting, at.size)
            for t in range(0, length, CHUNK):
                rows = fill_pieces(
                    values[b], up[b], activation, wide, end, t, min(t + CHUNK, length), counted[b], pieces
                )
                for k in range(-(-(end - wide) // SUB)):
                    start, stop = wide + k * SUB, min(wide + (k + 1) * SUB, end)
                    take_piece(
                        pieces[k],
                        piece_bits[k],
                        bins,
                        rows,
                        extremes[k],
                        power[k],
                        sums[6][start:stop],
                        binned[b],
                        threshold,
                    )
            for k in range(-(-(end - wide) // SUB)):
                start, stop = wide + k * SUB, min(wide + (k + 1) * SUB, end)
                for u in range(stop - start):
                    if not np.isfinite(power[k, 1, u]):
                        leave_out_nonfinite(
                            values[b, :, start + u],
                            bits[b, :, start + u],
                            at,
                            u,
                            extremes[k],
                            power[k],
                            sums[6][start:stop],
                            sums[5][start:stop],
                            binned[b],
                            threshold,
                        )
                add_sequence(extremes[k], power[k], start, stop, sums)
                if largest[0].shape[1]:
                    high = extremes[k, 1, : stop - start]
                    keep_top(
                        pieces[k],
                        length <= CHUNK,
                        values[b],
                        at,
                        keys[b],
                        start,
                        high,
                        F32(1),
                        distinct,
                        seq_ids[b],
                        splits[b],
                        slots,
                        largest,
                        room,
                    )
                if smallest[0].shape[1]:
                    low = negated[: stop - start]
                    for u in range(low.size):
                        low[u] = -extremes[k, 0, u]
                    keep_top(
                        pieces[k],
                        length <= CHUNK,
                        values[b],
                        at,
                        keys[b],
                        start,
                        low,
                        F32(-1),
                        distinct,
                        seq_ids[b],
                        splits[b],
                        slots,
                        smallest,
                        room,
                    )


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
