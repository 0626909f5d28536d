"""The backends, which compute the running state of a module.

`numba` works on a CPU, `triton` and `torch` on a GPU, and `sparse`, on a CPU, on activations that are mostly zero. The
recorder chooses one (`scan.open_sums`); all of them follow `contract`.
"""
