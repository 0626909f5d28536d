"""Activations with fewer significant bits, which take less disk.

The bits that are left out are zero and compress to nothing; unlike float16, what is left has float32's range (Zender 2016,
Bit Grooming; Klöwer et al. 2021, Compressing atmospheric data into its real information content).
"""

# mypy: disable-error-code="no-untyped-def"
import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
EXPONENT = np.uint32(0x7F800000)
"""Bits that are all 1 where a float32 is not finite."""
SIGNIFICANT = 24
"""Significant bits of a float32, the leading 1 that is not stored among them."""


def rounded(values: Floats, bits: int) -> Floats:
    """Values rounded to some significant bits, half to even; off by at most 2**-bits of themselves (of 1e-38, where they are smaller).

    What is not finite, and what would be infinite, stays as it is.
    """
    if bits == SIGNIFICANT:
        return values
    found = np.array(values)
    _round(found.view(np.uint32).reshape(-1), np.uint32(SIGNIFICANT - bits))
    return found


@njit(cache=True, nogil=True)
def _round(values, dropped):
    """Round float32, given as their bits, in place."""
    half = (np.uint32(1) << (dropped - np.uint32(1))) - np.uint32(1)
    for place in range(values.size):
        value = values[place]
        cut = (value + half + ((value >> dropped) & np.uint32(1))) >> dropped << dropped
        if value & EXPONENT != EXPONENT and cut & EXPONENT != EXPONENT:
            values[place] = cut
