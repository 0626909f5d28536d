"""Simulators see tokens and a text, nothing else; controls are simulated on the report split alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.config.run_file import parse_config
from stages.settings import SECTIONS
from stages.simulate.simulate_units import CONSTANT, by_unit, simulate_unit, unit_jobs
from stages.simulate.simulation import Simulation
from stages.token_means import TokenMeans

TOKENS = {1: ["a", " b"], 3: [" b", " c", " b"], 5: ["a"]}
CONFIG = parse_config(
    {"run": {"name": "r"}, "subject": {"model": "m", "modules": ["layers.0.mlp"]}, "corpus": {"source": "c.txt"}},
    "r.toml",
    SECTIONS,
)
SEQUENCES = [(1, "select"), (3, "report"), (5, "report")]


class Recording:
    """Fires where a token occurs in the explanation, fails on an empty one, and remembers what it was shown."""

    prompt_id = "p.v1"
    model = "m"

    def __init__(self) -> None:
        self.seen: list[tuple[str, list[list[str]]]] = []

    async def simulate(self, explanation: str, sequences: Sequence[Sequence[str]]) -> list[Simulation]:
        self.seen.append((explanation, [list(tokens) for tokens in sequences]))
        if explanation == "raises":
            raise ZeroDivisionError("by zero")
        if explanation == "broken":
            return [Simulation(None, None, "no numbers") for _ in sequences]
        found = [
            np.array([10.0 * (token.strip() in explanation) for token in tokens], np.float32) for tokens in sequences
        ]
        return [Simulation(values, np.ones_like(values)) for values in found]


def explanation(index: int, candidate: int, text: str) -> dict[str, Any]:
    return {
        "module": "layers.0.mlp", "index": index, "polarity": "+", "explainer": "e", "candidate": candidate, "text": text,
    }  # fmt: skip


def simulate(own: list[dict[str, Any]], shuffled: list[dict[str, Any]]) -> tuple[Recording, list[dict[str, Any]]]:
    simulator = Recording()
    jobs = unit_jobs(7, own, by_unit(shuffled), TokenMeans({" b": 2.0, "a": 0.5}, -3.0, " b"), CONFIG)
    return simulator, asyncio.run(simulate_unit(jobs, SEQUENCES, TOKENS, simulator, "recording", at_once=2))


def test_candidates_see_select_and_report_and_a_control_without_a_choice_sees_report_alone() -> None:
    simulator, rows = simulate([explanation(7, 0, "x"), explanation(7, 1, "y")], [explanation(8, 0, "other")])
    shown = dict(simulator.seen)
    assert shown["x"] == shown["y"] == [TOKENS[1], TOKENS[3], TOKENS[5]]
    assert shown["other"] == shown[CONSTANT] == shown['the token "b"'] == [TOKENS[3], TOKENS[5]]
    assert {row["split"] for row in rows if row["control"]} == {"report"}


def test_a_shuffled_row_names_the_unit_that_the_explanation_was_made_for() -> None:
    _, rows = simulate([explanation(7, 0, "x")], [explanation(8, 0, "other"), explanation(9, 0, "third")])
    assert {row["source"] for row in rows if row["control"] == "shuffled"} == {8, 9}
    assert {row["index"] for row in rows} == {7}


def test_another_unit_s_explanation_comes_with_as_many_candidates_as_the_unit_has_on_both_splits() -> None:
    own = [explanation(7, 0, "x"), explanation(7, 1, "y")]
    pool = [explanation(8, number, f"other {number}") for number in (2, 0, 1)] + [explanation(9, 0, "third")]
    simulator, rows = simulate(own, pool)
    shown = dict(simulator.seen)
    assert shown["other 0"] == shown["other 1"] == shown["x"] == [TOKENS[1], TOKENS[3], TOKENS[5]]
    assert "other 2" not in shown
    assert shown["third"] == [TOKENS[3], TOKENS[5]]
    found = {(row["source"], row["source_candidate"], row["split"]) for row in rows if row["control"] == "shuffled"}
    assert found == {(8, 0, "select"), (8, 0, "report"), (8, 1, "select"), (8, 1, "report"), (9, 0, "report")}
    assert {row["source_candidate"] for row in rows if not row["control"] and row["candidate"] == 1} == {1}


def test_the_opposite_of_each_candidate_is_simulated_on_the_report_split() -> None:
    simulator, rows = simulate([explanation(7, 0, "x"), explanation(7, 1, "y; to a lesser degree z.")], [])
    shown = dict(simulator.seen)
    assert shown["anything except x"] == shown["anything except y and z"] == [TOKENS[3], TOKENS[5]]
    assert {(row["source"], row["source_candidate"]) for row in rows if row["control"] == "inverted"} == {
        (7, 0),
        (7, 1),
    }


def test_the_lookup_table_predicts_the_mean_activation_of_each_token() -> None:
    _, rows = simulate([explanation(7, 0, "x")], [])
    [found] = [row for row in rows if row["control"] == "lookup" and row["seq_id"] == 3]
    assert np.asarray(found["expected"]).tolist() == [10, 0, 10], "of tokens that were never seen, the rest"
    assert (found["simulator"], found["model"], found["prompt_id"]) == ("recording", "", "")


def test_a_failed_simulation_is_a_row_that_says_why() -> None:
    _, rows = simulate([explanation(7, 0, "broken")], [])
    failed = [row for row in rows if row["control"] == ""]
    assert [(row["status"], row["error"], row["expected"]) for row in failed] == [("failed", "no numbers", None)] * 3


def test_a_unit_without_an_explanation_has_no_rows() -> None:
    assert simulate([], [explanation(8, 0, "other")])[1] == []


def test_an_error_in_the_simulator_is_that_of_one_explanation() -> None:
    _, rows = simulate([explanation(7, 0, "raises"), explanation(7, 1, "x")], [])
    found = {row["candidate"]: (row["status"], row["error"]) for row in rows if row["control"] == ""}
    assert found == {0: ("failed", "ZeroDivisionError: by zero"), 1: ("ok", None)}
