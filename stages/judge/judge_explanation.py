"""One explanation judged, and explanations of other units beside it on the same texts."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pipeline.config import RunConfig
from pipeline.errors import stops_the_shard
from pipeline.execution.concurrency import bounded_gather
from pipeline.schemas import EXPLANATION_KEYS
from stages.judge.answer_scores import scores
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts
from stages.settings import Judge
from stages.units import draw, unit_name

Row = dict[str, Any]


def controls_of(row: Row, pool: Sequence[Row], config: RunConfig) -> list[Row]:
    """The explanations of other units that are the controls of one, drawn by the seed."""
    others = [other for other in pool if other["index"] != row["index"]]
    rng = draw(config.run.seed, "judge controls/" + unit_name(row["module"], row["index"], row["polarity"]))
    return [others[place] for place in rng.permutation(len(others))[: config[Judge].controls]]


async def judge_explanation(
    row: Row,
    controls: Sequence[Row],
    unit: UnitTexts,
    scorer: ExampleScorer,
    config: RunConfig,
    at_once: int = 1,
) -> tuple[list[Row], Row]:
    """Rows of both tables for one explanation; it and its controls are judged side by side, `at_once` at most."""
    await asyncio.sleep(0)  # an interruption takes effect between explanations
    judge = config[Judge]
    rng = draw(config.run.seed, f"{judge.used}/" + unit_name(row["module"], row["index"], row["polarity"]))
    items = scorer.items(unit, rng)
    keys = {name: row[name] for name in EXPLANATION_KEYS} | {"method": judge.name, "model": scorer.model}

    async def judged(shown: Row) -> Judged:
        try:
            return await scorer.judge(shown["text"], items, unit)
        except Exception as error:
            if stops_the_shard(error):
                raise
            failed = Answer(None, error=f"{type(error).__name__}: {error}")
            return [(item, failed) for item in items or [Item("", "", False)]]

    asked = (row, *(controls if scorer.reads_explanation else ()))
    rows: list[Row] = []
    for shown, found in zip(asked, await bounded_gather(judged, asked, at_once), strict=True):
        control = "" if shown is row else "shuffled"
        said = {"control": control, "source": shown["index"], "prompt_id": scorer.prompt_id}
        rows += [keys | said | {"number": number} | _row(*one) for number, one in enumerate(found)]
    return rows, {**keys, "text": row["text"], "model": scorer.model, **scores(rows, scorer, unit, len(asked) - 1)}


def _row(item: Item, answer: Answer) -> Row:
    """The part of a row of `judgements` that is of its text."""
    found = vars(item) | vars(answer)
    value = answer.probability if answer.value is None else answer.value
    new = {"text": item.text if item.seq_id is None else None}
    return found | new | {"value": value, "error": answer.error or None, "status": "failed" if answer.error else "ok"}
