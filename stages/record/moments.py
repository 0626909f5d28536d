"""Power sums that come out the same whatever the order of adding, and the moments made of them.

A power sum over one sequence is a float64, always added up in the order of the positions. Across sequences it is
the unevaluated sum of two float64 (Knuth's two-sum, as in Ogita, Rump and Oishi 2005), which has about 106 bits: what
another order of adding changes lies far below the last bit of the float64 that is published.

Shapes: a sum is an array (2, ...) of the leading part and the rest; power sums are (4, 2, U), of x, x^2, x^3 and x^4.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
SPLITTER = 134217729.0
"""2**27 + 1 (Dekker 1971)."""
NEGLIGIBLE = 1e-7
"""A variance below this share of the mean square drowns in rounding as far as higher moments are concerned."""


def renormalised(high: Doubles, low: Doubles) -> Doubles:
    """The pair for high + low whose leading part is the rounded sum."""
    total = high + low
    rest = total - high
    return np.stack([total, (high - (total - rest)) + (low - rest)])


def add(a: Doubles, b: Doubles) -> Doubles:
    """Sum of two pairs."""
    high, low = renormalised(a[0], b[0])
    return renormalised(high, low + (a[1] + b[1]))


def multiply(a: Doubles, b: Doubles) -> Doubles:
    """Product of two pairs."""
    product = a[0] * b[0]
    a_high, a_low = _halves(a[0])
    b_high, b_low = _halves(b[0])
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return renormalised(product, error + (a[0] * b[1] + a[1] * b[0]))


def scale(a: Doubles, factor: float) -> Doubles:
    """A pair times a number."""
    return multiply(a, np.stack([np.full_like(a[0], factor), np.zeros_like(a[0])]))


def divide(a: Doubles, b: Doubles) -> Doubles:
    """A pair over plain numbers."""
    quotient = a[0] / b
    plain = np.stack([b, np.zeros_like(b)])
    remainder = add(a, -multiply(np.stack([quotient, np.zeros_like(b)]), plain))
    return renormalised(quotient, remainder[0] / b)


def _halves(x: Doubles) -> tuple[Doubles, Doubles]:
    wide = SPLITTER * x
    high = wide - (wide - x)
    return high, x - high


def moments(count: npt.NDArray[np.int64], sums: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Mean, population variance, skewness and kurtosis.

    Skewness is m3 / m2**1.5 and kurtosis m4 / m2**2 with the central moments m, so a normal distribution has kurtosis
    3, as in the records of Bills et al. 2023. NaN where undefined: without tokens, and the last two also where the
    variance is 0 or negligible beside the mean square (below 1e-7 of it).

    Args:
        count: (U,) tokens.
        sums: (4, 2, U) power sums.
    """
    with np.errstate(all="ignore"):
        number = np.where(count > 0, count, np.nan).astype(np.float64)
        raw = [divide(power, number) for power in sums]
        mean = raw[0]
        squared = multiply(mean, mean)
        second = add(raw[1], -squared)
        third = add(add(raw[2], -scale(multiply(mean, raw[1]), 3.0)), scale(multiply(squared, mean), 2.0))
        fourth = add(
            add(raw[3], -scale(multiply(mean, raw[2]), 4.0)),
            add(scale(multiply(squared, raw[1]), 6.0), -scale(multiply(squared, squared), 3.0)),
        )
        variance = np.maximum(second[0], 0.0)
        spread = np.where(variance > NEGLIGIBLE * raw[1][0], variance, np.nan)
        return mean[0], variance, third[0] / spread**1.5, fourth[0] / spread**2
