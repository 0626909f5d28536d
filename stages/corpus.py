"""corpus: text to a uniform sample of windows of token ids, in shuffled order, whole documents in each split."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tqdm import tqdm

from pipeline import schemas
from pipeline.config import Corpus, RunConfig
from pipeline.corpora.corpus_sources import check_corpus, corpus_identity, open_corpus
from pipeline.corpora.windows import (
    Document,
    Window,
    check_precomputed_corpus,
    cut_windows,
    opening_token,
    precomputed_windows,
    sample_windows,
    tokenize,
)
from pipeline.errors import UserError
from pipeline.execution.progress import say
from pipeline.execution.stage import Context, EstimateHints, Rows, Shard, Stage
from pipeline.subjects.loading.model_source import resolve_model
from pipeline.subjects.module_kinds import PRECOMPUTED, module_identity, modules_of, needs_model, precomputed_folder
from stages.document_splits import number_sequences, split_remark
from stages.estimates import corpus_sizes, made_up_corpus
from stages.evidence import split_of

if TYPE_CHECKING:
    from pipeline.subjects.vocabulary import TokenTexts

FEW = 1000
"""A corpus that has fewer sequences, and less than were asked for, is remarked upon."""


PIECE = schemas.CORPUS.rows_per_group
"""Rows that are made at a time: a row group."""


Numbered = Sequence[tuple[int, Window]]
"""Windows with their seq_ids."""


def sequence_tables(windows: Numbered, opening: Sequence[int], tokenizer: Any) -> Iterator[pa.Table]:
    """The rows of the table `corpus`, some after the other; `opening` tokens stand first in each."""
    from pipeline.subjects.vocabulary import TokenTexts

    texts = TokenTexts(tokenizer)
    for start in range(0, len(windows), PIECE):
        yield _sequence_table(windows[start : start + PIECE], opening, texts)


def _sequence_table(numbered: Numbered, opening: Sequence[int], texts: "TokenTexts") -> pa.Table:
    windows = [window for _, window in numbered]
    ids = [[*opening, *window.token_ids.tolist()] for window in windows]
    return pa.table(
        {
            "seq_id": [seq_id for seq_id, _ in numbered],
            "split": [split_of(seq_id) for seq_id, _ in numbered],
            "doc_id": [window.doc_id for window in windows],
            "start": [window.start for window in windows],
            "token_ids": ids,
            "tokens": [
                texts.window(one, opening=window.start == 0, before=window.before)
                for one, window in zip(ids, windows, strict=True)
            ],
        },
        schema=schemas.CORPUS.schema,
    )


def build_corpus(
    config: Corpus, seed: int, tokenizer: Any, folder: Path | None = None, *, show: bool = True
) -> pa.Table:
    """All of `corpus_pieces` as one table."""
    return pa.concat_tables(corpus_pieces(config, seed, tokenizer, folder, show=show))


def corpus_pieces(
    config: Corpus, seed: int, tokenizer: Any, folder: Path | None = None, *, show: bool = True
) -> Iterator[pa.Table]:
    """Read, tokenise, cut and sample a corpus, deal it to the splits, and say what was kept; its rows come some after the other.

    Memory does not grow with the text, only with corpus.max_sequences.

    Args:
        folder: the folder of activations whose sequences are the corpus, where they are; they are taken as they are.

    Raises:
        UserError: the corpus cannot be read, or no document is as long as a window.
    """
    opening = opening_token(tokenizer, config.bos) if folder is None else []
    length, shortest = config.seq_len - len(opening), config.min_tokens - len(opening)
    counts: Counter[str] = Counter()
    with tqdm(desc="corpus", unit="char", unit_scale=True, disable=None if show else True, leave=False) as bar:

        def documents() -> Iterator[Document]:
            for document in open_corpus(config):
                counts["documents"] += not document.continues
                bar.update(len(document.text))
                yield document

        def windows() -> Iterator[Window]:
            if folder is None:
                cut = cut_windows(tokenize(documents(), tokenizer), length, shortest, seed)
            else:
                cut = precomputed_windows(folder, config, seed, len(tokenizer))
            for window in cut:
                counts["windows"] += 1
                yield window

        kept = sample_windows(windows(), config.max_sequences)
    if not kept:
        raise UserError(
            f"corpus.source = {config.source!r} holds no document of at least {config.min_tokens} tokens; "
            "give another corpus, or lower corpus.min_tokens"
        )
    numbered = number_sequences(kept)
    if show:
        say(_summary(len(kept), counts, config))
        if remark := split_remark(
            len({window.ordinal for window in kept}), Counter(split_of(seq_id) for seq_id, _ in numbered)
        ):
            say(f"corpus: {remark}")
    return sequence_tables(numbered, opening, tokenizer)


def _summary(kept: int, counts: Mapping[str, int], config: Corpus) -> str:
    documents = f" in {counts['documents']:,} documents" if counts["documents"] else ""
    line = f"corpus: {kept:,} sequences kept of {counts['windows']:,}{documents}"
    few = (
        f"; these are few, and what units are found to do on them says little: give more text, or lower "
        f"corpus.seq_len = {config.seq_len} or corpus.min_tokens = {config.min_tokens}"
    )
    return line if kept >= min(FEW, config.max_sequences) else line + few


def _settings(config: RunConfig) -> dict[str, Any]:
    source = config.corpus.source
    precomputed = source.startswith(PRECOMPUTED)
    content = module_identity(config, source)["content"] if precomputed else corpus_identity(config.corpus)
    return {
        "corpus": config.corpus.model_dump(exclude={"source"}),
        "content": content,
        "tokenizer": resolve_model(config.subject.model).revision,
        "seed": config.run.seed,
    }


def _process(shard: Shard, context: Context) -> Rows:  # noqa: ARG001 - there is one shard
    from pipeline.subjects.loading.model_loading import load_tokenizer

    config, subject = context.config, context.config.subject
    tokenizer = load_tokenizer(subject.model, subject.trust_remote_code)
    return {"corpus": corpus_pieces(config.corpus, config.run.seed, tokenizer, _precomputed(config))}


def _precomputed(config: RunConfig) -> Path | None:
    """The folder of activations that the corpus is taken from, if it is."""
    return precomputed_folder(config, config.corpus.source) if config.corpus.source.startswith(PRECOMPUTED) else None


def _check(config: RunConfig) -> None:
    """The corpus can be opened, the modules exist, and a sequence fits into the model's context and begins as asked."""
    from pipeline.subjects.activation_sources import describe_modules
    from pipeline.subjects.loading.model_loading import describe_model, load_tokenizer

    folder, subject = _precomputed(config), config.subject
    if folder is None:
        check_corpus(config.corpus)
    else:
        check_precomputed_corpus(folder, config.corpus)
    if needs_model(modules_of(config)):
        longest = describe_model(subject.model, subject.trust_remote_code).context_length
        if longest is not None and config.corpus.seq_len > longest:
            raise UserError(
                f"corpus.seq_len = {config.corpus.seq_len}, but {subject.model} reads at most {longest} tokens; "
                f"allowed: 2 to {longest}"
            )
    describe_modules(config)
    opening_token(load_tokenizer(subject.model, subject.trust_remote_code), config.corpus.bos)


CORPUS = Stage(
    name="corpus",
    title="cut the corpus",
    reads=(),
    writes=(schemas.CORPUS,),
    settings=_settings,
    plan=lambda *_: [Shard("part-00000", {"sequences": "all"})],  # the sample is drawn from the whole corpus
    process=_process,
    check=_check,
    estimate=EstimateHints(corpus_sizes, made_up_corpus),
    version=3,
)
