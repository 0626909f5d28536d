"""A text of a unit chooses for all of its candidates or for none of them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import stages.sasc.synthesize
from pipeline.execution.stage import Context, Shard
from stages.sasc.ngram_pieces import normalised_text
from stages.sasc.sasc_units import Row
from stages.sasc.synthesize import HALVES, SYNTHESIZE, Synthesizer, Texts, deal, process, unit_rows
from stages.sasc.texts_retrieved import RetrievedSynthesizer
from tests.stages.explain.scripted import ScriptedEngine
from tests.stages.sasc.small_run import GOOD, run_file, writer
from tests.stages.sasc.test_synthesizers import bags

EXPLANATIONS = ["old ships at sea", "ships at sea", "ships and dogs", "sea", "cold sea and old ships"]
COUNT = 20


def theme(index: int, candidate: int) -> Row:
    keys = {"module": "black_box:f", "index": index, "polarity": "+", "explainer": "told"}
    return keys | {"candidate": candidate, "text": EXPLANATIONS[candidate]}


def retrieved() -> Synthesizer:
    words = ["old", "cold", "ships", "sea", "dogs", "at", "and", "war", "taxes", "bread", "red", "hill"]
    rng = np.random.default_rng(3)
    return RetrievedSynthesizer([f"{' '.join(rng.choice(words, 6))} {number}." for number in range(300)], bags())


def written() -> Synthesizer:
    """Replies that share most of their texts, with other capitals and marks."""
    rng = np.random.default_rng(4)

    def reply(request: int, _: int) -> str:
        texts = [f"The ship of {chr(97 + letter)}{chr(97 + letter)} sailed" for letter in rng.permutation(26)[:12]]
        ends = [".", "!", " again.", f" in year {request}."]
        return "\n".join(
            f"{n}. {rng.choice([text, text.upper()])}{rng.choice(ends)}" for n, text in enumerate(texts, 1)
        )

    return writer(ScriptedEngine(reply))


def unit_of(synthesizer: Synthesizer, index: int = 0) -> list[tuple[Row, Texts]]:
    """Each explanation of a unit with its texts."""
    texts = [asyncio.run(synthesizer.write(text, COUNT, place)) for place, text in enumerate(EXPLANATIONS)]
    return [(theme(index, place), own) for place, own in enumerate(texts)]


def said(rows: Sequence[Row], half: str) -> set[str]:
    return {normalised_text(row["text"]) for row in rows if row["half"] == half}


@pytest.mark.parametrize("synthesizer", [retrieved(), written()], ids=["retrieved", "written"])
def test_no_text_that_chooses_is_published_for_any_candidate(synthesizer: Synthesizer) -> None:
    rows = unit_rows(unit_of(synthesizer), COUNT)
    assert not said(rows, "select") & said(rows, "report")
    times = Counter(normalised_text(row["text"]) for row in rows)
    assert max(times.values()) > 1, "candidates share texts"
    by_parity = [row | {"half": HALVES[row["number"] % 2]} for row in rows]
    assert said(by_parity, "select") & said(by_parity, "report"), (
        "to deal each candidate's texts by itself is not enough"
    )


@pytest.mark.parametrize("synthesizer", [retrieved(), written()], ids=["retrieved", "written"])
def test_the_halves_of_each_candidate_are_about_as_large(synthesizer: Synthesizer) -> None:
    sizes = Counter(
        (row["candidate"], row["kind"], row["half"]) for row in unit_rows(unit_of(synthesizer), COUNT) if row["text"]
    )
    for candidate in range(len(EXPLANATIONS)):
        for kind in ("relevant", "baseline"):
            select, report = (sizes[candidate, kind, half] for half in HALVES)
            assert select + report == COUNT
            assert abs(select - report) <= 2


def test_random_sets_are_evened_out() -> None:
    rng = np.random.default_rng(0)
    differences: Counter[int] = Counter()
    for _ in range(200):
        pool = rng.integers(25, 200)
        sets = [[f"text {place}" for place in rng.permutation(pool)[:20]] for _ in range(10)]
        dealt = deal(sets)
        pairs = {pair for texts, halves in zip(sets, dealt, strict=True) for pair in zip(texts, halves, strict=True)}
        assert len(pairs) == len({text for text, _ in pairs})
        differences.update(abs(halves.count("select") - halves.count("report")) for halves in dealt)
    assert max(differences) <= 10
    assert differences[0] + differences[2] > 0.9 * differences.total()


def test_texts_that_are_not_shared_are_dealt_in_turn() -> None:
    dealt = deal([["a", "b", "c"], [], ["d", "e"]])
    assert dealt == [["select", "report", "select"], [], ["select", "report"]]


def test_texts_that_say_the_same_are_in_one_half() -> None:
    dealt = deal([["The sea.", "A dog"], ["A hill", "the SEA!", "a dog?"]])
    assert dealt[0] == [dealt[1][1], dealt[1][2]]


def test_the_halves_of_a_unit_do_not_depend_on_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    synthesizer = retrieved()
    context = Context(run_file(Path("anywhere"), "halves", [GOOD]), SYNTHESIZE)
    units = {index: unit_of(synthesizer, index)[index:] for index in range(3)}

    async def found(shard: Shard, context: Context) -> list[tuple[Row, Texts]]:
        return [one for index in shard.key["indices"] for one in units[index]]

    async def silent(rows: Sequence[Row], module: str, context: Context) -> None:
        pass

    monkeypatch.setattr(stages.sasc.synthesize, "written", found)
    monkeypatch.setattr(stages.sasc.synthesize, "respond", silent)

    def rows(*indices: int) -> list[Row]:
        shard = Shard("part", {"module": "black_box:f", "polarity": "+", "indices": list(indices)})
        table = asyncio.run(process(shard, context))["synthetic_texts"]
        assert isinstance(table, pa.Table)
        return [dict(row) for row in table.to_pylist()]

    assert rows(0, 1, 2) == rows(0) + rows(1, 2) == rows(0) + rows(1) + rows(2)
