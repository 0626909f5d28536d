"""Search the explanations of a run, by their words and by their meaning.

Words are ranked by BM25 (Robertson and Zaragoza 2009), meanings by the cosine of sentence embeddings. Reciprocal rank fusion joins the two
ranks (Cormack et al. 2009). The embeddings are a table of the run, made once, and later for new explanations alone.
"""

import re
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.results.score_tables import OpenRun, published
from pipeline.schemas import FLOATS, TableSchema, column
from pipeline.storage.checked_reading import checked_dataset, damage_told
from pipeline.storage.footers import fingerprint, footer, read_footer
from pipeline.storage.shards import publish

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.subjects.embedder import Embedder

EMBEDDINGS = TableSchema(
    "explanation_embeddings",
    1,
    pa.schema(
        [
            column("text", pa.string(), "the text of explanations; no text stands here twice"),
            column("embedding", FLOATS, "its vector, of length 1, by the embedder that the footer names"),
        ]
    ),
)
SATURATION, BY_LENGTH = 1.5, 0.75
"""k1 and b of BM25."""
FUSION = 60
"""k of reciprocal rank fusion."""

Floats = npt.NDArray[np.float32]


def search(run: OpenRun, query: str, limit: int, by_meaning: bool) -> "pd.DataFrame":
    """The explanations that fit a query, the best first: columns of `published`, then `words`, `meaning` and `relevance`.

    `words` is 0 where no word occurs. `meaning` is NaN where it was not asked for, or where a warning says that there is no embedder.

    Raises:
        UserError: the query has no word, or the run no explanations.
    """
    if not re.search(r"\w", query):
        raise UserError(f"search for {query!r}; give some words, such as: colour words")
    found = published(run)
    found["words"] = word_scores(found["text"], query)
    found["meaning"] = _meanings(run, found["text"], query) if by_meaning else np.nan
    ranks = [found[name].where(found[name] != 0).rank(ascending=False, method="min") for name in ("words", "meaning")]
    found["relevance"] = sum((1 / (FUSION + rank)).fillna(0) for rank in ranks)
    best = found[found["relevance"] > 0].sort_values("relevance", ascending=False, kind="stable")
    return best.head(limit).reset_index(drop=True)


def word_scores(texts: "pd.Series[str]", query: str) -> "pd.Series[float]":
    """BM25 of each text; a word of the query also matches longer words that begin with it, a plural those of its singular."""
    lengths = texts.str.count(r"\w+")
    longer = SATURATION * (1 - BY_LENGTH + BY_LENGTH * lengths / max(lengths.mean(), 1))
    scores = lengths * 0.0
    for word in dict.fromkeys(re.findall(r"\w+", query.casefold())):
        stem = word[:-1] if len(word) > 3 and word.endswith("s") else word
        counts = texts.str.count(rf"(?i)\b{re.escape(stem)}")
        holding = int((counts > 0).sum())
        rarity = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        scores = scores + rarity * counts * (SATURATION + 1) / (counts + longer)
    return scores


def _meanings(run: OpenRun, texts: "pd.Series[str]", query: str) -> Floats:
    """Cosine of each text with the query; NaN without an embedder."""
    try:
        from pipeline.subjects.embedder import load_embedder

        embedder = load_embedder()
    except (ImportError, UserError) as error:
        warnings.warn(f"searched by words alone, as the sentence embedder cannot be used: {error}", stacklevel=4)
        return np.full(len(texts), np.nan, np.float32)
    vectors = embeddings(run, sorted(set(texts)), embedder)
    wanted = embedder.encode([query])[0]
    cosines = {text: float(vector @ wanted) for text, vector in vectors.items()}
    return np.array([cosines[text] for text in texts], np.float32)


def embeddings(run: OpenRun, texts: Sequence[str], embedder: "Embedder") -> dict[str, Floats]:
    """The vectors of some texts, from the run's table of embeddings.

    The table is published again where it lacks a text or has others; vectors that it has are kept. Where the folder cannot be written, they
    are worked out every time.
    """
    from pipeline.subjects.embedder import RECIPE

    start, file = time.perf_counter(), run.root / EMBEDDINGS.path / "part-00000.parquet"
    inputs = {"embedder": embedder.name, "revision": embedder.revision, "recipe": RECIPE}
    vectors: dict[str, Floats] = {}
    with suppress(UserError), damage_told([file]):  # a file that is not there, foreign or damaged is made anew
        if read_footer(file, EMBEDDINGS).fingerprint == fingerprint(inputs):
            rows = checked_dataset([file]).to_table()
            values = rows["embedding"].combine_chunks().flatten().to_numpy().reshape(rows.num_rows, -1)
            vectors = dict(zip(rows["text"].to_pylist(), values, strict=True))
    missing = [text for text in texts if text not in vectors]
    found = vectors | dict(zip(missing, embedder.encode(missing, many=True), strict=True))
    found = {text: found[text] for text in texts}
    if found.keys() != vectors.keys():
        rows = EMBEDDINGS.of_rows([{"text": text, "embedding": vector} for text, vector in found.items()])
        with suppress(UserError):
            publish(file, rows, EMBEDDINGS, footer(inputs, {}, time.perf_counter() - start))
    return found
