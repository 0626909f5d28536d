"""Activations with fewer significant bits, which take less disk.

The bits that are left out are zero and compress to nothing; unlike float16, what is left has float32's range (Zender 2016,
Bit Grooming; Klöwer et al. 2021, Compressing atmospheric data into its real information content).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
SIGNIFICANT = 24
"""Significant bits of a float32, the leading 1 that is not stored among them."""


def rounded(values: Floats, bits: int) -> Floats:
    """Values rounded to some significant bits, half to even; off by at most 2**-bits of themselves (of 1e-38, where they are smaller).

    What is not finite, and what would be infinite, stays as it is.
    """
    dropped = np.uint32(SIGNIFICANT - bits)
    if not dropped:
        return values
    whole = np.ascontiguousarray(values).view(np.uint32)
    even = (whole >> dropped) & np.uint32(1)
    kept = (whole + ((np.uint32(1) << (dropped - np.uint32(1))) - np.uint32(1) + even)) >> dropped << dropped
    found = kept.view(np.float32)
    return np.where(np.isfinite(found) & np.isfinite(values), found, values)
