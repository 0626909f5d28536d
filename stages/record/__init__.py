"""The recording stage: what makes every unit fire.

`scan` turns a range of the corpus into partial evidence for all units, `merge` turns the partials of a range of units
into their final rows. The modules, from the inside out:

    sequences   the corpus as the stages take it
    selection   which sequences are kept, and in which order
    histogram   bins taken from a float's bits, and the quantiles read from them
    moments     power sums that come out the same in any order, and the moments made of them
    tokens      the tokens whose mean activation is recorded
    neighbourhood   keys by which sequences with the same peak are told to be the same
    reading, measure, kernel, winners   what single sequences tell, put together, and the strongest of them kept, in numba
    prefetch    what they fetch into the cache ahead of its use
    sparse_kernel, sparse_sums   the same of activations that are mostly zero
    memory      where the state lies
    sums        what the running state of a module is
    numba_sums  that state on a CPU
    triton_sums, triton_kernels, triton_winners, triton_launch   the same on a GPU, for which the program never waits
    trial       whether these find there what torch finds
    torch_sums, torch_winners   the same on any torch device
    device_batch, device_rows   what is copied to a device and back
    recorder    feeds batches to them and turns their state into partial tables
    scan, merge the two stages
    weights     a stage of its own: tokens that a unit favours and answers to, by the weights alone
    details     another: attribution and attention pairs in the exemplars of units to be explained
    embeddings, likeness, negatives     two more: sequences near to exemplars, and those on which a unit stays low

Letters of shapes: B sequences of a batch, T tokens of a sequence, U units, K kept sequences, V tokens of the token
table, S splits.
"""
