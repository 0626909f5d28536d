"""The recording stage: what makes every unit fire.

`scan` turns a range of the corpus into partial evidence for all units, and `merge` turns the partials of a range of units into
their final rows. On the way from a text to the rows of a unit:

    sequences        the corpus as the stages take it, in batches, and which sequences are kept: top-k, quantile and random
    recorded_batch   what every module needs to know of a batch, and the tokens whose mean activation is recorded
    scan             gives the activations of a batch to the modules' states, and turns these into partial tables
    backends/        the running state of a module: contract, numba, sparse, torch and triton
    partial_tables   the tables between the two stages
    partials         the partial tables of a range of units, part by part
    merge            the statistics of all partials, and their rows
    exemplars        the top-k and uniformly kept sequences of all partials, and their rows
    unit_statistics  histograms, quantiles and moments
    record_sizes     what all this takes, before it is done

Stages of their own are `weights` (tokens that a unit favours and answers to, by the weights alone), `details` (attribution and
attention pairs in exemplars) and the two in `negatives` (sequences near to exemplars, found by `likeness`, on which a unit stays
low).

Letters of shapes: B sequences of a batch, T tokens of a sequence, U units, K top-k slots of a unit, V tokens of the token
table, S splits.
"""
