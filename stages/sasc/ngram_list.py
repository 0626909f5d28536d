"""The ngrams.list stage: the n-grams of the corpus, none across a document's end, and how often each occurs.

All documents are read, as far as corpus.max_documents goes, not only the sequences that were drawn. The most frequent
ones are listed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.corpora.corpus_sources import open_corpus
from pipeline.corpora.document import Document
from pipeline.corpora.windows import tokenize
from pipeline.errors import UserError
from pipeline.execution.context import Context
from pipeline.execution.stage import Shard, Stage
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.identity import PRECOMPUTED
from stages.sasc.counting import NgramCounts
from stages.sasc.ngram_pieces import Ngram, forms_of_tokens, forms_of_words, read_tokens, read_words
from stages.sasc.sasc_tables import NGRAM_LIST
from stages.settings import Sasc


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the list, beyond the corpus."""
    return config[Sasc].model_dump(include={"sizes", "pieces", "min_count", "max_ngrams"})


def plan(config: RunConfig, tables: Tables) -> list[Shard]:  # noqa: ARG001 - the contract of a stage
    """One shard: the most frequent n-grams are those of the whole corpus."""
    return [Shard("part-00000", {"ngrams": "all"})]


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:  # noqa: ARG001 - there is one shard
    """Count and list."""
    sasc = context.config[Sasc]
    with NgramCounts(read_words if sasc.pieces == "words" else read_tokens) as counts:
        for forms in _forms(context):
            counts.add(forms)
        found = counts.most_frequent(sasc.max_ngrams, sasc.min_count)
    if not found:
        raise UserError(
            f"no n-gram of sasc.sizes = {sasc.sizes} occurs sasc.min_count = {sasc.min_count} times in the corpus; lower these, "
            "or give another corpus"
        )
    return {NGRAM_LIST.name: list_table(found)}


def list_table(ngrams: list[tuple[Ngram, int]]) -> pa.Table:
    """Rows of NGRAM_LIST, numbered in the order given."""
    columns = {
        "ngram_id": range(len(ngrams)),
        "text": [ngram.text for ngram, _ in ngrams],
        "n": [ngram.n for ngram, _ in ngrams],
        "count": [count for _, count in ngrams],
    }
    return pa.table(columns, schema=NGRAM_LIST.schema)


def _forms(context: Context) -> Iterator[list[str]]:
    from pipeline.subjects.loading.model_loading import load_tokenizer
    from pipeline.subjects.token_text import TokenTexts

    config = context.config
    sizes = sorted(set(config[Sasc].sizes))
    if config[Sasc].pieces == "words":
        yield from forms_of_words(_documents(context), sizes)
        return
    tokenizer = load_tokenizer(config.subject.model, config.subject.trust_remote_code)
    joined = TokenTexts(tokenizer).joined
    if not config.corpus.source.startswith(PRECOMPUTED):
        yield from forms_of_tokens(tokenize(_documents(context), tokenizer), joined, sizes)
        return
    special = set(tokenizer.all_special_ids)
    for seq_id, ids in _sequences(context, "token_ids"):
        text = [token for token in ids if token not in special]
        yield from forms_of_tokens([(Document(str(seq_id), ""), text)], joined, sizes)


def _documents(context: Context) -> Iterator[Document]:
    """The documents of the corpus; where it is a folder of activations, its sequences."""
    config = context.config.corpus
    if config.source.startswith(PRECOMPUTED):
        for seq_id, tokens in _sequences(context, "tokens"):
            yield Document(str(seq_id), "".join(tokens))
        return
    with tqdm(desc="n-grams", unit="char", unit_scale=True, leave=False, disable=None) as bar:
        for document in open_corpus(config):
            bar.update(len(document.text))
            yield document


def _sequences(context: Context, column: str) -> Iterator[tuple[int, list[Any]]]:
    for batch in context.tables.batches(CORPUS, columns=["seq_id", column]):
        yield from zip(batch["seq_id"].to_pylist(), batch[column].to_pylist(), strict=True)


LIST = Stage(
    name="ngrams.list",
    title="list n-grams",
    reads=("corpus",),
    writes=(NGRAM_LIST,),
    settings=settings,
    plan=plan,
    process=process,
    method="sasc",
)
