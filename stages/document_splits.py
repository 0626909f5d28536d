"""Which split each sequence of the corpus belongs to: whole documents are dealt to the splits.

Sequences of one document share names and topics. Were they dealt out one by one, an explanation would be scored on documents
that its explainer has seen.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count, groupby

from pipeline.corpora.windows import Window
from stages.evidence import SPLIT_OF_RESIDUE, SPLITS

FEWEST = len(SPLITS)
"""Documents that can be dealt out whole; a corpus of fewer is cut into consecutive parts."""
LITTLE = 0.5
"""A split with less than this part of its share is remarked upon."""
PERIOD = len(SPLIT_OF_RESIDUE)


def number_sequences(windows: Sequence[Window]) -> list[tuple[int, Window]]:
    """Windows with their seq_ids, which say their splits (see `split_of`); by rising seq_id.

    The largest documents are dealt out first, each to the split that is filled least: half of the sequences are meant for
    `explain`, a quarter each for `select` and `report`. So the splits have their sizes as nearly as whole documents allow. The
    windows of a split get its seq_ids in the order of their keys, without a gap; where a split is used up earlier than another,
    its later numbers are missing. A corpus of one or two documents is cut into consecutive parts instead.
    """
    in_text = sorted(windows, key=_place)
    documents = [list(of) for _, of in groupby(in_text, key=lambda window: window.ordinal)]
    parts = _dealt(documents) if len(documents) >= FEWEST else _consecutive(in_text)
    numbered = [
        pair
        for split, part in parts.items()
        for pair in zip(_seq_ids(split), sorted(part, key=lambda window: (window.key, *_place(window))), strict=False)
    ]
    return sorted(numbered, key=lambda pair: pair[0])


def split_remark(documents: int, sizes: Mapping[str, int]) -> str:
    """What a user has to know of the splits of a corpus; nothing where whole documents fill them well.

    Args:
        documents: those that have a sequence.
        sizes: sequences of each split.
    """
    if documents < FEWEST:
        few = "one document" if documents == 1 else f"{documents} documents"
        return (
            f"it has {few}, so its splits are consecutive parts of the text, and scores will tell how explanations hold in the rest of the "
            "same text, not in other texts; give more documents (each text file, and each line of a JSONL file, is one)"
        )
    total = sum(sizes.values())
    if all(sizes.get(split, 0) >= LITTLE * SPLIT_OF_RESIDUE.count(split) / PERIOD * total for split in SPLITS):
        return ""
    listed = ", ".join(f"{split} {sizes.get(split, 0):,}" for split in SPLITS)
    return f"its {documents} documents are dealt whole, so its splits are uneven ({listed} sequences); give more documents, or shorter ones"


def _place(window: Window) -> tuple[int, int]:
    return window.ordinal, window.start


def _seq_ids(split: str) -> Iterable[int]:
    return (number for number in count() if SPLIT_OF_RESIDUE[number % PERIOD] == split)


def _dealt(documents: Iterable[list[Window]]) -> dict[str, list[Window]]:
    """Windows by split; between documents of one size the one with the smallest key comes first."""
    parts: dict[str, list[Window]] = {split: [] for split in SPLITS}
    following = {split: SPLIT_OF_RESIDUE.index(split) for split in SPLITS}  # about where its next seq_id lies
    for document in sorted(documents, key=lambda found: (-len(found), min(window.key for window in found))):
        split = min(SPLITS, key=lambda name: following[name])
        parts[split] += document
        following[split] += len(document) * PERIOD // SPLIT_OF_RESIDUE.count(split)
    return parts


def _consecutive(windows: Sequence[Window]) -> dict[str, list[Window]]:
    """Windows in the order of the text, cut so that no seq_id is missing."""
    parts, start = {}, 0
    for split in SPLITS:
        size = sum(SPLIT_OF_RESIDUE[number % PERIOD] == split for number in range(len(windows)))
        parts[split] = list(windows[start : start + size])
        start += size
    return parts
