"""One unit of a run: what was recorded of it, what was said of it, and how well that holds."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError, nearest
from pipeline.results.notebook_page import unit_page
from pipeline.results.score_tables import OpenRun, explanation_tables, read, score_tables
from pipeline.results.shown_unit import (
    ShownExemplar,
    ShownExplanation,
    shown_exemplars,
    shown_explanations,
    shown_statistics,
)
from pipeline.schemas import EXEMPLARS, EXPLANATION_KEYS, SIMULATIONS, UNITS, TableSchema

if TYPE_CHECKING:
    import pandas as pd

SHOWN_EXEMPLARS = 8


class UnitView:
    """A unit of an opened run, which notebooks show as a page. Each table is read when it is first asked for.

    >>> open_run("outputs/demo").unit("layers.4.mlp", 591)
    <unit layers.4.mlp 591 + of outputs/demo>
    """

    def __init__(self, run: OpenRun, module: str, index: int, polarity: str = "+") -> None:
        """Raises UserError: the run has no such unit."""
        if polarity not in ("+", "-"):
            raise UserError(f"polarity {polarity!r}; allowed: + for large activations, - for very negative ones")
        self.run, self.module, self.index, self.polarity = run, module, index, polarity
        if not self.statistics and self.explanations.empty:
            raise UserError(self._unknown())

    def __repr__(self) -> str:
        return f"<unit {self.title} of {self.run.root}>"

    @property
    def title(self) -> str:
        """Module, index and polarity."""
        return f"{self.module} {self.index} {self.polarity}"

    def rows(self, table: str) -> "pd.DataFrame":
        """Its rows of any table about units, in its polarity.

        >>> promoted = open_run("outputs/demo").unit("layers.4.mlp", 591).rows("unit_tokens")["promoted"]

        Raises:
            UserError: the run has no such table, or its rows are not about units.
        """
        rows: pd.DataFrame = self.run.unit_rows(table, self.module, self.index, self.polarity).to_pandas()
        return rows

    def _rows(self, table: TableSchema) -> "pd.DataFrame":
        """The same, none where the run has no such table."""
        import pandas as pd

        return self.rows(table.name) if table.name in self.run.tables else pd.DataFrame(columns=table.schema.names)

    @cached_property
    def statistics(self) -> dict[str, Any]:
        """Its row of the table `units`: moments, density, histogram, quantiles, top tokens. Empty where it was not recorded.

        >>> density = open_run("outputs/demo").unit("layers.4.mlp", 591).statistics["density"]
        """
        rows = self._rows(UNITS)
        return {} if rows.empty else {str(name): value for name, value in rows.iloc[0].items()}

    @cached_property
    def top_tokens(self) -> "pd.DataFrame":
        """Tokens with the highest mean activation, with the lowest for polarity `-`: token, mean_activation, count.

        >>> tokens = list(open_run("outputs/demo").unit("layers.4.mlp", 591).top_tokens["token"])
        """
        import pandas as pd

        entries = self.statistics.get("top_tokens" if self.polarity == "+" else "bottom_tokens")
        return pd.DataFrame([] if entries is None else list(entries), columns=["token", "mean_activation", "count"])

    @cached_property
    def explanations(self) -> "pd.DataFrame":
        """Its explanations, those that lost to another candidate too, with model, prompt, status and error.

        >>> texts = open_run("outputs/demo").unit("layers.4.mlp", 591).explanations["text"]
        """
        import pandas as pd

        parts = [self.rows(name) for name in explanation_tables(self.run)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*EXPLANATION_KEYS, "text"])

    @cached_property
    def scores(self) -> "dict[str, pd.DataFrame]":
        """Its rows of every table of scores, by the table's name; outputs/README.md describes the columns.

        >>> scores = open_run("outputs/demo").unit("layers.4.mlp", 591).scores["scores"]
        >>> best = scores[["text", "correlation", "ci_low", "ci_high"]].dropna()
        """
        return {table.name: self.rows(table.name) for table in score_tables(self.run)}

    @cached_property
    def simulations(self) -> "pd.DataFrame":
        """What simulators expect by its explanations: a row for each explanation and sequence. Controls are left out.

        >>> expected = open_run("outputs/demo").unit("layers.4.mlp", 591).simulations[["seq_id", "expected"]]
        """
        rows = self._rows(SIMULATIONS)
        return rows[(rows["control"] == "") & (rows["status"] == "ok")]

    @cached_property
    def exemplars(self) -> "pd.DataFrame":
        """Its exemplars with their tokens, and with what a simulator expects there.

        Columns are those of the table, `tokens` of the corpus, and `expected`: 0 to 10 at every token, by the explanation with the best
        score, and None where nothing was simulated. `simulations` has the other explanations. Activations that do not count are NaN.

        >>> exemplars = open_run("outputs/demo").unit("layers.4.mlp", 591).exemplars
        >>> strongest_tokens = [row.tokens[row.peak] for row in exemplars.itertuples()]
        """
        import pandas as pd

        rows = self._rows(EXEMPLARS)
        texts = self.run.sequences(rows["seq_id"].tolist())
        tokens = dict(zip(texts["seq_id"].to_pylist(), texts["tokens"].to_pylist(), strict=True))
        expected = self._expected()
        rows["tokens"] = pd.Series([list(tokens.get(seq_id, ())) for seq_id in rows["seq_id"]], dtype=object)
        rows["expected"] = pd.Series([expected.get(seq_id) for seq_id in rows["seq_id"]], dtype=object)
        return rows

    def strongest(self, count: int = SHOWN_EXEMPLARS) -> "pd.DataFrame":
        """Its strongest exemplars; where something was simulated, those of the split `report`, which no explainer has seen.

        >>> peaks = open_run("outputs/demo").unit("layers.4.mlp", 591).strongest(3)["max_activation"]
        """
        rows = self.exemplars
        unseen = rows[(rows["split"] == "report") & rows["expected"].notna()]
        chosen = rows if unseen.empty else unseen
        by_size = chosen["max_activation"].abs().sort_values(ascending=False, kind="stable").index
        return chosen.loc[by_size].drop_duplicates("seq_id").head(count)

    def shown_explanations(self) -> list[ShownExplanation]:
        """Its explanations and their scores as text for people, the best one first."""
        return shown_explanations(self.explanations, [(one, self.scores[one.name]) for one in score_tables(self.run)])

    def shown_exemplars(self, count: int = SHOWN_EXEMPLARS) -> list[ShownExemplar]:
        """Its strongest exemplars as coloured text for people."""
        return shown_exemplars(self.exemplars, self.strongest(count), self.polarity)

    def shown_statistics(self) -> list[str]:
        """Its statistics and top tokens, in lines for people."""
        return shown_statistics(self.statistics, self.top_tokens, self.polarity)

    def _repr_html_(self) -> str:
        return unit_page(self.title, self.shown_statistics(), self.shown_explanations(), self.shown_exemplars())

    def _expected(self) -> dict[int, Any]:
        """What is expected on each sequence, by the simulated explanation with the best score."""
        rows = self.simulations
        if rows.empty:
            return {}
        keys = ["explainer", "candidate", "simulator"]
        best = dict.fromkeys(rows[keys].itertuples(index=False, name=None), float("-inf"))
        for table in score_tables(self.run):
            if "simulator" in table.methods:
                known = self.scores[table.name].dropna(subset=table.score)
                best |= zip(known[keys].itertuples(index=False, name=None), known[table.score], strict=True)
        chosen = max(best, key=lambda key: best[key])
        own = rows[[key == chosen for key in rows[keys].itertuples(index=False, name=None)]]
        return dict(zip(own["seq_id"], own["expected"], strict=True))

    def _unknown(self) -> str:
        """Why there is no such unit."""
        known: dict[str, list[int]] = {}
        for name in {UNITS.name, *explanation_tables(self.run)} & set(self.run.tables):
            for module, rows in read(self.run, name, ["module", "index"]).groupby("module"):
                known.setdefault(str(module), []).extend(rows["index"])
        if not known:
            return f"{self.run.root} has no units yet; they are recorded by: make record"
        if self.module not in known:
            return f"{self.run.root} has no module {self.module!r}; {nearest(self.module, sorted(known))}"
        units = known[self.module]
        return f"{self.run.root} has no unit {self.index} of {self.module}; its units are within {min(units)} to {max(units)}"
