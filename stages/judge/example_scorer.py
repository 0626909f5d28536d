"""What a scorer on examples is: it says of texts whether they fit an explanation, and the truth comes from the unit's activations.

Everything comes from the `report` split, which neither explained the unit nor chose among its explanations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from pipeline.execution.stage import Context
from pipeline.schemas import NEGATIVES
from stages.evidence import Exemplar, RecordedUnits
from stages.judge.text_choice import JUDGED_TEXTS
from stages.settings import Judge


@dataclass(frozen=True)
class UnitTexts:
    """The texts of a unit, each cut to the tokens around its peak; as many that fit as others."""

    module: str
    index: int
    polarity: str
    fitting: list[Exemplar] = field(default_factory=list)
    """The unit fires on them, at every strength alike."""
    deciles: list[int] = field(default_factory=list)
    """For each of these 1 for the strongest tenth of the texts on which the unit fires, to 10 for the weakest."""
    others: list[Exemplar] = field(default_factory=list)
    """It does not, or only weakly, as judge.negatives has it."""
    fires_above: float = 0.0
    """A text fires the unit above this maximum."""
    share_firing: float = np.nan
    """Share of the texts of a uniform sample that do."""


@dataclass(frozen=True)
class Item:
    """A text, or a question about several, and the right answer."""

    band: str
    """Why it was chosen."""
    text: str
    """As it is shown."""
    fits: bool
    """Whether the unit responds to it, or to its marked tokens."""
    seq_id: int | None = None
    """The sequence of the corpus that it is of; None for a text that is not from there."""
    decile: int | None = None
    """Its strength, as of UnitTexts."""
    place: int = 0
    """Of a question about several texts, the number of the one that does not fit, from 1 on."""


@dataclass(frozen=True)
class Answer:
    """What a scorer says of an item."""

    says: bool | None
    """Whether it fits; None where the scorer has a number alone, or `error` says why there is no answer."""
    probability: float | None = None
    """P(yes) / (P(yes) + P(no)) where a language model answers; None without log-probabilities."""
    value: float | None = None
    """The larger, the better the text fits; the probability, or 1 for yes and 0 for no, where it is None."""
    error: str = ""
    prompt_tokens: int = 0
    """Of the whole request, carried by its first text."""
    completion_tokens: int = 0


Judged = list[tuple[Item, Answer]]


class ExampleScorer:
    """Says of the texts of a unit whether they fit an explanation; a method of judging is a subclass that says how."""

    number = "auroc"
    """The column of `example_scores` that is its score: balanced_accuracy, accuracy, precision or auroc."""
    chance: float | None = 0.5
    """That number for whoever knows nothing; None where it is the unit's share of firing texts."""
    reads_explanation = True
    """Without, there are no controls, and the score is of the unit."""
    model = ""
    """The language model or embedder that takes part, empty for none."""
    prompt_id = ""
    """Its prompt, empty for none."""
    only_asks = False
    """For estimates: whether it is only to ask its language model, and to run no subject."""

    def prepare(self, units: Sequence[UnitTexts], explanations: Sequence[str]) -> None:
        """What will be asked about soon, for who works it out better together."""

    def items(self, unit: UnitTexts, rng: np.random.Generator) -> list[Item]:  # noqa: ARG002 - for who draws
        """What is asked about a unit, whatever the explanation: every text, unless a method says otherwise."""
        return texts_of(unit)

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:
        """An answer for each item, in order; or for items that follow from the explanation."""
        raise NotImplementedError


def texts_of(unit: UnitTexts) -> list[Item]:
    """Every text of a unit as it is, those that fit first."""
    fitting = [
        Item(one.band, "".join(one.tokens), True, one.seq_id, decile)
        for one, decile in zip(unit.fitting, unit.deciles, strict=True)
    ]
    return fitting + [Item(one.band, "".join(one.tokens), False, one.seq_id) for one in unit.others]


def unit_texts(context: Context, module: str, indices: Sequence[int], polarity: str) -> dict[int, UnitTexts]:
    """The texts of some units as the run file wants them.

    What is `weak` need not be quiet, so then texts fit that are stronger than all of those.
    """
    judge, recorded = context.config[Judge], RecordedUnits.of(context)
    unit = (module, indices, ("report",), polarity)
    chosen = recorded.exemplars(*unit, JUDGED_TEXTS)
    hard = recorded.exemplars(*unit, NEGATIVES) if judge.negatives == "hard" else {}
    names = ["index", "seq_id", "decile", "fires_above", "share_firing"]
    where = context.tables.is_unit(module, indices, polarity) & (pc.field("rank") >= 0)
    rows = context.tables.read(JUDGED_TEXTS, where, names).to_pylist()
    facts = {row["index"]: row for row in rows}
    deciles = {(row["index"], row["seq_id"]): row["decile"] for row in rows if row["decile"] is not None}
    found = {}
    for index in indices:
        band = "weak" if judge.negatives == "weak" else "quiet"
        others = hard[index] if hard else [one for one in chosen[index] if one.band == band]
        floor = max((one.highest for one in others), default=-np.inf) if band == "weak" else -np.inf
        fitting = [one for one in chosen[index] if one.band == "fires" and one.highest > floor]
        count = min(judge.examples, len(fitting), len(others))
        found[index] = UnitTexts(
            module, index, polarity,
            [one.around(judge.context) for one in fitting[:count]],
            [deciles[index, one.seq_id] for one in fitting[:count]],
            [one.around(judge.context) for one in others[:count]],
            facts[index]["fires_above"] if index in facts else 0.0,
            facts[index]["share_firing"] if index in facts else np.nan,
        )  # fmt: skip
    return found
