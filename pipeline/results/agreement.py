"""Whether several judges or simulators of one run agree: on the scores of units, and on single texts.

Two that agree may still both be wrong. Where they do not, a score is that of its judge as much as that of the explanation.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.results.score_tables import OpenRun, ScoreTable, read, score_tables
from pipeline.schemas import EXPLANATION_KEYS, NULL_UNITS

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["score", "by", "first", "second", "units", "correlation", "texts", "kappa"]
TEXT_KEYS = [*EXPLANATION_KEYS, "control", "source", "number", "seq_id", "band", "fits", "prompt_id"]
"""What answers are about: two with the same prompt and these were given to the same question."""


def agreements(run: OpenRun) -> "pd.DataFrame":
    """How far the scores of each two judges, or of each two simulators, of the same explanations go together.

    Returns:
        COLUMNS: Pearson's correlation of their scores over units, and, where both answered the same questions of texts, Cohen's kappa of
        their answers (1 for equal ones, 0 for as many equal ones as chance gives). Each is named with its language model.

    Raises:
        UserError: no two judges or simulators scored the same explanations.
    """
    import pandas as pd

    found = [pair for table in score_tables(run) for by in table.methods for pair in _agreed(run, table, by)]
    if not found:
        raise UserError(
            f"{run.root} has no two judges or simulators to compare; list several, such as simulate.simulator = "
            '["word", "lookup"] or variants with engines of their own, or name another run'
        )
    return pd.DataFrame(found, columns=COLUMNS)


def _agreed(run: OpenRun, table: ScoreTable, by: str) -> Iterator[dict[str, Any]]:
    """Rows for each two methods that the column `by` of a table of scores tells apart."""
    models = ["model"] if "model" in run.schema(table.name).names else []
    rows = read(run, table.name, [*EXPLANATION_KEYS, *table.methods, *models, table.score]).dropna(subset=table.score)
    rows, answers = rows[rows["module"] != NULL_UNITS], _answers(run, by)
    keys = [*EXPLANATION_KEYS, *(name for name in table.methods if name != by)]
    for first, second in combinations(rows[by].unique().tolist(), 2):
        pair, texts = (_joined(given, by, first, second, on) for given, on in ((rows, keys), (answers, TEXT_KEYS)))
        if len(pair):
            yield {
                "score": table.score,
                "by": by,
                "first": _named(rows, by, first),
                "second": _named(rows, by, second),
                "units": len(pair),
                "correlation": correlation(pair[table.score], pair[f"{table.score}_second"]),
                "texts": len(texts),
                "kappa": cohen_kappa(texts["says"], texts["says_second"]),
            }


def correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Pearson's; NaN for fewer than three values, or where one side does not vary."""
    pair = np.asarray([first, second], np.float64)
    if pair.shape[1] < 3 or (np.ptp(pair, axis=1) == 0).any():
        return np.nan
    centred = pair - pair.mean(axis=1, keepdims=True)
    return float(centred[0] @ centred[1] / np.sqrt((centred**2).sum(axis=1).prod()))


def cohen_kappa(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Cohen's kappa of answers of yes and no (Cohen 1960); NaN without answers, or where both always say the same one thing."""
    one, other = (np.asarray(answers, bool) for answers in (first, second))
    if not one.size:
        return np.nan
    by_chance = one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean())
    return float(((one == other).mean() - by_chance) / (1 - by_chance)) if by_chance < 1 else np.nan


def _joined(rows: "pd.DataFrame", by: str, first: Any, second: Any, keys: list[str]) -> "pd.DataFrame":
    """The rows of one beside those of the other about the same."""
    one, other = (rows[rows[by] == name] for name in (first, second))
    return one.merge(other, on=[name for name in keys if name in rows], suffixes=("", "_second"))


def _answers(run: OpenRun, by: str) -> "pd.DataFrame":
    """The answers of judges, by the table that tells judges apart by this column; none where the run has no such table."""
    import pandas as pd

    for name in run.tables:
        schema = run.schema(name)
        if by in schema.names and "says" in schema.names and pa.types.is_boolean(schema.field("says").type):
            wanted = [key for key in TEXT_KEYS if key in schema.names]
            return read(run, name, [*wanted, by, "says"]).dropna(subset="says")
    return pd.DataFrame(columns=[*TEXT_KEYS, by, "says"])


def _named(rows: "pd.DataFrame", by: str, name: str) -> str:
    """With the language model, where one took part and its name is not this one."""
    models = rows.loc[rows[by] == name, "model"].dropna().unique().tolist() if "model" in rows else []
    return f"{name} ({', '.join(sorted(models))})" if any(models) else name
