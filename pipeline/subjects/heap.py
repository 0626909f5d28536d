"""The heap of this process, as far as glibc manages it."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
TRIM_AT = 2**31 - 1
MAP_AT = 2**30


def keep_freed_memory() -> bool:
    """Give up to 2 GiB of freed memory to the next tensors, instead of to the system. Returns whether it could be arranged.

    A forward pass takes and frees the same large tensors in each layer. Memory that was given back in between comes as new pages, which
    the system clears when they are touched: 5 % of the CPU time of a pass.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, MAP_AT) and mallopt(M_TRIM_THRESHOLD, TRIM_AT))
