# mypy: disable-error-code="no-untyped-def"
"""Activation functions of MLPs on rows of float32, in numba: the function and the product with `up` in one pass.

Each is right to float32 rounding (some 1e-7 of the input). `exp` is the usual one: the exponent is taken off by powers of
two, what is left by a polynomial (the coefficients are those of Cephes' expf); written without branches, so that the
compiler vectorises it.
"""

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

F32, I32 = np.float32, np.int32
LOG2_E, LN2_HIGH, LN2_LOW = F32(1.44269504088896341), F32(0.693359375), F32(-2.12194440e-4)
ROUND = F32(1.5 * 2**23)
"""Adding and taking away this float32 rounds to a whole number."""
LEAST, MOST = F32(-87.0), F32(88.0)
BIAS, MANTISSA = I32(127), I32(23)
EXP = tuple(F32(c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5))
ERF_ABOVE = tuple(
    F32(c)
    for c in (
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    )
)
ERF_BELOW = tuple(
    F32(c)
    for c in (
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    )
)
"""A rational minimax approximation of erf(x) / x in x^2 for |x| <= 4, as in Eigen and XLA."""
TANH_SCALE, TANH_CUBE = F32(2 * np.sqrt(2 / np.pi)), F32(0.044715)
ROOT_HALF = F32(np.sqrt(0.5))

SILU, GELU_TANH, GELU, RELU = 0, 1, 2, 3
NAMES = {"silu": SILU, "gelu_tanh": GELU_TANH, "gelu": GELU, "relu": RELU}


@intrinsic
def float_of(typingctx, bits):  # noqa: ARG001
    """The float32 with these bits."""

    def generate(context, builder, signature, args):  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def exp(x):
    x = x if x > LEAST else LEAST
    x = x if x < MOST else MOST
    whole = (LOG2_E * x + ROUND) - ROUND
    rest = (x - whole * LN2_HIGH) - whole * LN2_LOW
    p = EXP[0]
    p = p * rest + EXP[1]
    p = p * rest + EXP[2]
    p = p * rest + EXP[3]
    p = p * rest + EXP[4]
    p = p * rest + EXP[5]
    p = p * (rest * rest) + rest + F32(1)
    return p * float_of(I32(I32(I32(whole) + BIAS) << MANTISSA))


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def erf(x):
    x = x if x > F32(-4) else F32(-4)
    x = x if x < F32(4) else F32(4)
    square = x * x
    above, below = ERF_ABOVE[0], ERF_BELOW[0]
    above = above * square + ERF_ABOVE[1]
    above = above * square + ERF_ABOVE[2]
    above = above * square + ERF_ABOVE[3]
    above = above * square + ERF_ABOVE[4]
    above = above * square + ERF_ABOVE[5]
    above = above * square + ERF_ABOVE[6]
    below = below * square + ERF_BELOW[1]
    below = below * square + ERF_BELOW[2]
    below = below * square + ERF_BELOW[3]
    below = below * square + ERF_BELOW[4]
    return x * above / below


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def silu(x):
    return x / (F32(1) + exp(-x))


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def gelu_tanh(x):
    """0.5 x (1 + tanh(y)) = x / (1 + exp(-2 y)) with y = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return x / (F32(1) + exp(-TANH_SCALE * (x + TANH_CUBE * x * x * x)))


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def gelu(x):
    return F32(0.5) * x * (F32(1) + erf(x * ROOT_HALF))


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def finish_rows(kind, gate, up):
    """Put act(gate) * up, or act(gate) where `up` is empty, into `gate`, row by row. (N, U) and (N, U) or (N, 0)."""
    for i in range(gate.shape[0]):
        row, other = gate[i], up[i]
        if kind == SILU:
            for u in range(row.size):
                row[u] = silu(row[u])
        elif kind == GELU_TANH:
            for u in range(row.size):
                row[u] = gelu_tanh(row[u])
        elif kind == GELU:
            for u in range(row.size):
                row[u] = gelu(row[u])
        else:
            for u in range(row.size):
                row[u] = row[u] if row[u] > F32(0) or row[u] != row[u] else F32(0)
        for u in range(other.size):
            row[u] *= other[u]
