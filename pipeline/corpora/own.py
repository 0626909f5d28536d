"""The sequences of a folder of activations as a corpus: windows as given, in the seed's order."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Corpus
from pipeline.corpora.windows import Window, window_key
from pipeline.errors import UserError
from pipeline.subjects.precomputed_files import own_files, token_blocks


def own_windows(folder: Path, config: Corpus, seed: int, vocabulary: int) -> Iterator[Window]:
    """The rows of all files that have at least min_tokens tokens; their doc_id is `FILE:ROW`.

    Args:
        vocabulary: token ids that the tokenizer knows are below it.

    Raises:
        UserError: a row is longer than seq_len, or has a token that the tokenizer does not know.
    """
    ordinal = 0
    for file in own_files(folder):
        for start, block in token_blocks(file):
            for row, ids in enumerate(block, start):
                ids = ids[: file.lengths[row]]
                if config.max_documents is not None and ordinal >= config.max_documents:
                    return
                if len(ids) >= config.min_tokens:
                    place = f"{file.path.name}:{row}"
                    _refuse_unknown(place, int(ids.min()), int(ids.max()), vocabulary)
                    yield Window(window_key(seed, ordinal, 0), ordinal, 0, place, ids.astype("int32"))
                ordinal += 1


def check_own_corpus(folder: Path, config: Corpus) -> None:
    """Raises UserError where the files cannot be read, or their sequences do not fit the settings."""
    longest = max(int(file.lengths.max(initial=0)) for file in own_files(folder))
    if longest > config.seq_len:
        raise UserError(
            f"corpus.seq_len = {config.seq_len}, but {folder} holds sequences of {longest} tokens, which are taken as they are; "
            f"write seq_len = {longest}"
        )
    if config.bos == "yes":
        raise UserError(f'corpus.bos = "yes", but sequences of {config.source!r} are taken as they are; leave it out')


def _refuse_unknown(place: str, least: int, most: int, vocabulary: int) -> None:
    if least < 0 or most >= vocabulary:
        raise UserError(
            f"{place} holds the token id {least if least < 0 else most}, but the tokenizer of subject.model knows 0 to "
            f"{vocabulary - 1}; name the model whose tokenizer made these ids, and leave padding out by `lengths`"
        )
