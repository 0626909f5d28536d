"""The ngrams.list stage: the n-grams of the corpus, none across a document's end, and how often each occurs.

All documents are read, as far as corpus.max_documents goes, not only the sequences that were drawn. The most frequent
n-grams are listed. Counts are exact, and memory is bounded: forms are counted in a table in memory, which goes to DuckDB
whenever it is full; DuckDB keeps what does not fit into its own share of the memory in a temporary folder.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.config.section import choice
from pipeline.corpora.corpus_sources import open_corpus
from pipeline.corpora.windows import Document, tokenize
from pipeline.errors import UserError
from pipeline.execution.stage import Context, EstimateHints, Shard, Stage, numbered_shards
from pipeline.schemas import CORPUS
from pipeline.storage.tables import Tables
from pipeline.subjects.module_kinds import PRECOMPUTED, needs_model
from stages.sasc import READINGS, Sasc
from stages.sasc.ngram_pieces import Ngram, forms_of_tokens, forms_of_words, read_tokens, read_words
from stages.sasc.sasc_tables import NGRAM_LIST
from stages.sasc.sasc_units import units_to_explain

MOST_FORMS = 1_000_000
"""Forms in the table in memory, of about 200 bytes each."""
DUCKDB_MEMORY = "1GB"
FORMS = pa.schema([("key", pa.string()), ("text", pa.string()), ("n", pa.int8()), ("count", pa.int64())])
MOST_FREQUENT = """
SELECT best.text, best.n, count FROM (
    SELECT first({'text': text, 'n': n} ORDER BY count DESC, text, n) AS best, sum(count)::BIGINT AS count
    FROM (SELECT key, text, n, sum(count) AS count FROM forms GROUP BY ALL) GROUP BY key
)
WHERE count >= $least ORDER BY count DESC, best.text, best.n LIMIT $limit"""


def settings(config: RunConfig) -> dict[str, Any]:
    """What can change the list, beyond the corpus."""
    return config[Sasc].model_dump(include={"sizes", "pieces", "min_count", "max_ngrams"})


def plan(config: RunConfig, tables: Tables) -> list[Shard]:  # noqa: ARG001 - the contract of a stage
    """One shard: the most frequent n-grams are those of the whole corpus."""
    return numbered_shards([{"ngrams": "all"}])


def process(shard: Shard, context: Context) -> Mapping[str, pa.Table]:  # noqa: ARG001 - there is one shard
    """Count and list."""
    sasc = context.config[Sasc]
    read = read_words if sasc.pieces == "words" else read_tokens
    found = most_frequent(_forms(context), read, sasc.max_ngrams, sasc.min_count)
    if not found.num_rows:
        raise UserError(
            f"no n-gram of sasc.sizes = {sasc.sizes} occurs sasc.min_count = {sasc.min_count} times in the corpus; lower these, "
            "or give another corpus"
        )
    return {NGRAM_LIST.name: found}


def most_frequent(
    documents: Iterable[list[str]], read: Callable[[str], Ngram], limit: int, min_count: int, most: int = MOST_FORMS
) -> pa.Table:
    """Rows of NGRAM_LIST: the n-grams with the largest counts, by falling count, then by text.

    An n-gram has the text of its commonest form, of the first one by text among equals.

    Args:
        documents: the forms in each document.
        read: from a form to what it says.
        most: forms in memory at a time.
    """
    import duckdb

    with (
        tempfile.TemporaryDirectory(prefix="ngrams-") as folder,
        duckdb.connect(config={"memory_limit": DUCKDB_MEMORY, "temp_directory": folder}) as connection,
    ):
        connection.sql("CREATE TABLE forms (key VARCHAR, text VARCHAR, n TINYINT, count BIGINT)")
        counts: Counter[str] = Counter()
        for forms in documents:
            counts.update(forms)
            if len(counts) > most:
                connection.from_arrow(_counted(counts, read)).insert_into("forms")
                counts.clear()
        connection.from_arrow(_counted(counts, read)).insert_into("forms")
        found = connection.sql(MOST_FREQUENT, params={"least": min_count, "limit": limit}).to_arrow_table()
        return found.add_column(0, "ngram_id", pa.array(range(len(found)), pa.int64())).cast(NGRAM_LIST.schema)


def _counted(counts: Mapping[str, int], read: Callable[[str], Ngram]) -> pa.Table:
    rows = [(*read(form), count) for form, count in counts.items()]
    columns = zip(*rows, strict=True) if rows else [()] * len(FORMS)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, FORMS, strict=True)], schema=FORMS)


def _forms(context: Context) -> Iterator[list[str]]:
    """The forms in each document, or in each piece of a long one."""
    from pipeline.subjects.loading.model_loading import load_tokenizer
    from pipeline.subjects.vocabulary import TokenTexts

    config = context.config
    sizes = sorted(set(config[Sasc].sizes))
    if config[Sasc].pieces == "words":
        yield from forms_of_words(_documents(context), sizes)
        return
    tokenizer = load_tokenizer(config.subject.model, config.subject.trust_remote_code)
    if config.corpus.source.startswith(PRECOMPUTED):
        special = set(tokenizer.all_special_ids)
        found: Iterable[tuple[Document, list[int]]] = (
            (Document(str(seq_id), ""), [token for token in ids if token not in special])
            for seq_id, ids in _sequences(context, "token_ids")
        )
    else:
        found = tokenize(_documents(context), tokenizer)
    yield from forms_of_tokens(found, TokenTexts(tokenizer).joined, sizes)


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


def sizes(config: RunConfig) -> dict[str, str]:
    """Upper bounds of what functions of texts are asked."""
    sasc, units = config[Sasc], units_to_explain(config)
    asked = {module for module, _, _ in units}
    in_model = sum(needs_model([module]) for module in asked)
    found = {
        "units explained by n-grams": f"{len(units):,}, with {sasc.nulls:,} null units",
        "n-grams": f"{sasc.max_ngrams:,} at most",
    }
    if boxes := len(asked) - in_model:
        found["n-grams evaluated by black boxes"] = f"{boxes * sasc.max_ngrams:,} at most"
    if in_model:
        found |= choice(READINGS, sasc.reading).sizes(config, in_model)
    return found | {"texts for and against explanations": f"{len(units) * sasc.candidates * 2 * sasc.texts:,} at most"}


LIST = Stage(
    name="ngrams.list",
    title="list n-grams",
    reads=("corpus",),
    writes=(NGRAM_LIST,),
    settings=settings,
    plan=plan,
    process=process,
    method="sasc",
    estimate=EstimateHints(sizes),
)
