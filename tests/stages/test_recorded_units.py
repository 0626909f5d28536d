"""What an explainer is given: exemplars around their peaks, and what else the tables say of a unit."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.run_file import parse_config
from pipeline.execution.stage import Context, Shard
from pipeline.schemas import CORPUS, DETAILS, EXEMPLARS, NEGATIVES, UNIT_TOKENS, UNITS, TableSchema
from pipeline.storage.shards import publish
from pipeline.storage.tables import Tables
from stages import STAGES
from stages.evidence import Evidence, Pair, RecordedUnits
from stages.settings import SECTIONS

MODULE = "layers.0.attn"
UNIT = {"module": MODULE, "index": 2}
KEPT = UNIT | {"polarity": "+", "split": "explain", "rank": 0, "peak": 0}


def write(folder: Path, table: TableSchema, *rows: dict[str, Any]) -> None:
    shard = Shard("part-00000", {})
    publish(Tables(folder / "r").file(table, shard.name), pa.Table.from_pylist(rows, table.schema), table, {})


def listed(*tokens: str) -> list[dict[str, Any]]:
    return [{"token_id": place, "token": token, "value": 1.0} for place, token in enumerate(tokens)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A unit with one exemplar, one hard negative, details and tokens."""
    for_sequences = [{"seq_id": number, "tokens": [f"{number}t{place}" for place in range(8)]} for number in (0, 2, 4)]
    write(tmp_path, CORPUS, *for_sequences)
    write(tmp_path, UNITS, UNIT | {"top_tokens": []})
    rows = [(0, "top", [0, 0, 0, 0, 0, 9, 0, 0]), (4, "random", [None, 1, 0, 0, 0, 0, 0, 0])]
    write(tmp_path, EXEMPLARS, *(KEPT | {"seq_id": n, "band": band, "activations": values} for n, band, values in rows))
    hard = [("neighbour", 0, "+"), ("similar", 1, "+"), ("similar", 0, "+"), ("similar", 0, "-")]
    quiet = {"seq_id": 2, "activations": [0, 0, 0, 1, 0, 0, 0, 0]}
    write(tmp_path, NEGATIVES, *(
        KEPT | quiet | {"band": band, "rank": rank, "polarity": polarity} for band, rank, polarity in hard
    ))  # fmt: skip
    pairs = [{"from": 4, "to": 5, "value": 3.0}, {"from": 0, "to": 5, "value": 2.0}]
    write(tmp_path, DETAILS, UNIT | {"polarity": "+", "seq_id": 0, "attribution": list(range(8)), "pairs": pairs})
    write(
        tmp_path, UNIT_TOKENS, UNIT | {"promoted": listed(" a", "b"), "suppressed": listed("c"), "input_tokens": None}
    )
    return tmp_path


def evidence(folder: Path, **explain: Any) -> Evidence:
    values = {
        "run": {"name": "r", "folder": str(folder)},
        "subject": {"model": "m", "modules": [MODULE]},
        "corpus": {"source": "c.txt"},
        "record": {"negatives": 4},
        "explain": {"explainer": "max_activation", "engine": {"model": "m"}} | explain,
    }
    [found] = RecordedUnits(Context(parse_config(values, "test", SECTIONS), STAGES["explain"])).evidence(MODULE, [2])
    return found


def test_without_more_settings_texts_are_whole_and_details_are_there(folder: Path) -> None:
    found = evidence(folder)
    assert [(len(one.tokens), one.start) for one in found.exemplars] == [(8, 0), (8, 0)]
    assert found.details[0].pairs == [Pair(4, 5, 3.0), Pair(0, 5, 2.0)]
    assert (found.negatives, found.promoted) == ([], [])


def test_texts_activations_and_details_are_cut_around_the_peak(folder: Path) -> None:
    found = evidence(folder).around(4)
    top, random = found.exemplars
    assert top.tokens == ["0t3", "0t4", "0t5", "0t6"]
    assert top.activations.tolist() == [0, 0, 9, 0]
    assert random.tokens == ["4t0", "4t1", "4t2", "4t3"]
    assert np.isnan(random.activations[0])
    detail = found.details[0]
    assert detail.pairs == [Pair(1, 2, 3.0)]
    assert detail.attribution is not None
    assert detail.attribution.tolist() == [3, 4, 5, 6]


def test_hard_negatives_come_by_kind_and_rank_and_of_one_polarity(folder: Path) -> None:
    found = evidence(folder, negatives="hard").negatives
    assert [one.band for one in found] == ["similar", "similar", "neighbour"]
    assert [one.around(2).tokens for one in found] == [["2t2", "2t3"]] * 3


def test_tokens_from_the_weights_are_given_where_they_are_asked_for(folder: Path) -> None:
    found = evidence(folder, output_tokens=True)
    assert found.promoted == [" a", "b"]


def test_a_very_negative_unit_promotes_what_it_else_suppresses(folder: Path) -> None:
    config = parse_config(
        {"run": {"name": "r", "folder": str(folder)}, "subject": {"model": "m", "modules": [MODULE]},
         "corpus": {"source": "c.txt"}}, "test", SECTIONS)  # fmt: skip
    assert RecordedUnits(Context(config, STAGES["explain"])).promoted_tokens(MODULE, [2, 3], "-") == {2: ["c"], 3: []}


def test_a_unit_of_which_the_tables_say_nothing_has_no_details(folder: Path) -> None:
    for table in (DETAILS, UNIT_TOKENS, NEGATIVES):
        Tables(folder / "r").file(table, "part-00000").unlink()
    found = evidence(folder, negatives="hard", output_tokens=True)
    assert (found.details, found.negatives, found.promoted) == ({}, [], [])


def test_what_is_made_for_a_module_is_kept_until_another_one_is_asked_for() -> None:
    sections = {"run": {"name": "r"}, "subject": {"model": "m", "modules": [MODULE]}, "corpus": {"source": "c.txt"}}
    context = Context(parse_config(sections, "test", SECTIONS), STAGES["explain"])
    made = [context.latest("source", key, lambda config: [config.run.name]) for key in "aaba"]
    assert made[0] is made[1]
    assert len({id(thing) for thing in made}) == 3
    assert context.latest("site", "a", lambda _: ["another thing of the same module"]) != made[3]
    assert context.latest("source", "a", lambda _: []) is made[3]


def test_activations_are_read_without_the_corpus_where_texts_are_not_asked_for(folder: Path) -> None:
    (folder / "r" / "corpus" / "part-00000.parquet").unlink()
    values = {
        "run": {"name": "r", "folder": str(folder)},
        "subject": {"model": "m", "modules": [MODULE]},
        "corpus": {"source": "c.txt"},
    }
    recorded = RecordedUnits(Context(parse_config(values, "test", SECTIONS), STAGES["explain"]))
    found = recorded.exemplars(MODULE, [2], ["explain"], texts=False)[2]
    assert [(one.seq_id, one.band, one.tokens, len(one.activations)) for one in found] == [
        (0, "top", [], 8),
        (4, "random", [], 8),
    ]
