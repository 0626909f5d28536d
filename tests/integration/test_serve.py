"""What is tried on a served run: the real simulator and the real model give the numbers that the stages gave."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.command_line.looking import trials_of
from pipeline.config.run_file import load_config
from pipeline.results.run_folder import open_run
from stages.settings import SECTIONS
from stages.try_units import NUMBERS, UnitTrials
from tests.integration.endpoint_run import KEY, KEY_VARIABLE, sections, write_run
from tests.integration.made_up_model import reply
from tests.pipeline.llm.endpoint.loopback import Loopback
from tests.pipeline.serve.serving import Reply, Served, serving


@pytest.fixture(scope="module")
def served(finished: Path) -> Iterator[Served]:
    """A server of the finished run with its run file."""
    config = load_config(str(finished), SECTIONS)
    with serving(config.root, lambda: UnitTrials(config)) as found:
        yield found


def attempt(served: Served, what: str, module: str, index: int, **more: Any) -> Reply:
    return served.ask(f"/api/{what}", method="POST", body={"module": module, "index": index, **more})


def test_a_published_explanation_gets_its_published_score(served: Served, root: Path) -> None:
    run = open_run(root)
    scores = run.scores.query("status == 'ok'")
    row = scores.nlargest(1, "correlation").iloc[0]
    module, index = str(row["module"]), int(row["index"])
    found = attempt(served, "simulate", module, index, explanation=row["text"]).json
    for name in NUMBERS:
        assert found[name] == pytest.approx(row[name], abs=1e-9, nan_ok=True), name
    assert (found["n_sequences"], found["n_tokens"]) == (row["n_sequences"], row["n_tokens"])
    assert (found["simulator"], found["error"]) == ("word", None)
    table = run.table("simulations").query(
        "module == @module and index == @index and control == '' and split == 'report'"
    )
    table = table[table["candidate"] == row["candidate"]].set_index("seq_id")
    assert {one["seq_id"] for one in found["sequences"]} == set(table.index)
    for one in found["sequences"]:
        np.testing.assert_allclose(one["expected"], table.loc[one["seq_id"], "expected"], atol=1e-6)


def test_words_that_have_nothing_to_do_with_a_unit_score_little(served: Served, root: Path) -> None:
    scores = open_run(root).scores.query("status == 'ok'")
    row = scores.nlargest(1, "correlation").iloc[0]
    found = attempt(served, "simulate", row["module"], int(row["index"]), explanation="names of chemical elements").json
    assert found["correlation"] is None or found["correlation"] < row["correlation"]


def test_a_text_of_the_corpus_gets_the_recorded_activations(served: Served, root: Path) -> None:
    """Up to the last tokens, as a text that is cut elsewhere may end in other tokens."""
    run = open_run(root)
    rows = run.table("exemplars").merge(run.table("corpus"), on="seq_id").query("start == 0 and polarity == '+'")
    row = rows.nlargest(1, "max_activation").iloc[0]
    text = "".join(row["tokens"])
    found = attempt(served, "activations", row["module"], int(row["index"]), text=text).json
    assert found["tokens"][:-2] == list(row["tokens"])[:-2]
    true = np.array(row["activations"], float)[:-2]
    read = np.array([np.nan if value is None else value for value in found["activations"]])[: len(true)]
    np.testing.assert_array_equal(np.isnan(read), np.isnan(true))
    np.testing.assert_allclose(read[~np.isnan(true)], true[~np.isnan(true)], atol=0.01 * np.nanmax(true))
    assert found["cut"] is False


def test_a_long_text_is_cut_to_a_sequence_of_the_corpus(served: Served) -> None:
    found = attempt(served, "activations", "layers.2.mlp", 0, text="one two three " * 200).json
    assert (len(found["tokens"]), len(found["activations"]), found["cut"]) == (32, 32, True)


def test_any_unit_of_a_recorded_module_reads_a_text_and_no_other(served: Served) -> None:
    assert attempt(served, "activations", "layers.9.mlp", 1535, text="A red house. 𝔸\x00").status == 200
    cases = [
        ("layers.9.mlp", 1536, "A", "units 0 to 1535, not 1536"),
        ("layers.3.mlp", 0, "A", "layers.2.mlp, layers.9.mlp"),
        ("layers.9.mlp", 0, " \n", "blank"),
    ]
    for module, index, text, words in cases:
        reply = attempt(served, "activations", module, index, text=text)
        assert reply.status == 400
        assert words in reply.error
    reply = attempt(served, "simulate", "layers.3.mlp", 0, explanation="colours")
    assert (reply.status, "no exemplars of layers.3.mlp/0" in reply.error) == (400, True)


def test_a_run_beside_the_first_is_tried_by_the_run_file_that_its_folder_keeps(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, beside = copied.parent / "reduced", copied.parent / "beside"
    shutil.copytree(first, beside)
    kept = json.loads((beside / "provenance.json").read_text())
    monkeypatch.chdir(kept["paths_from"])
    opener = trials_of(None, beside)
    assert opener is not None
    unit = ("layers.2.mlp", "+", 0)
    found = asyncio.run(opener().activations(unit, "one two three"))
    assert found == asyncio.run(UnitTrials(load_config(str(copied), SECTIONS)).activations(unit, "one two three"))

    def changed(change: dict[str, Any]) -> object:
        text = json.loads(json.dumps(kept))
        for section, values in change.items():
            text["run_file"][section] |= values
        (beside / "provenance.json").write_text(json.dumps(text))
        return trials_of(None, beside)

    engine = {"model": "m", "base_url": "http://localhost:1/v1"}
    code = {"black_boxes": {"x": {"call": "os:system"}}}
    assert changed({}) is not None
    assert changed({"simulate": {"simulator": "generated", "engine": engine}}) is not None
    assert changed({"subject": code}) is None
    assert changed({"subject": {"trust_remote_code": True}}) is None
    assert changed({"run": {"prompts": "prompts-of-theirs"}}) is None
    for key in ({"key_variable": "MY_KEY"}, {"headers": {"X": "env:MY_KEY"}}, {"trust_remote_code": True}):
        assert changed({"simulate": {"simulator": "generated", "engine": engine | key}}) is None
    changed({})
    monkeypatch.chdir(copied.parent)
    assert trials_of(None, beside) is None, "its paths start elsewhere"
    config = load_config(str(copied), SECTIONS)
    assert trials_of(config, config.root) is not None, "that of the run file itself works anyway"


def test_a_simulator_behind_an_endpoint_is_asked_once_for_the_same_words(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with Loopback(reply) as endpoint:
        part = sections(endpoint.base_url, "loopback", "max_activation", "generated", 2)
        config = load_config(str(write_run(tmp_path / "run", recorded, part)), SECTIONS)
        unit = open_run(config.root).table("exemplars").query("split == 'report'").iloc[0]
        with serving(config.root, lambda: UnitTrials(config)) as found:
            tries = [attempt(found, "simulate", unit["module"], int(unit["index"]), explanation="rivers") for _ in "ab"]
            asked = endpoint.requests
        assert [one.status for one in tries] == [200, 200], tries[0].body
        assert tries[0].json == tries[1].json
        assert all(one["expected"] for one in tries[0].json["sequences"])
        assert asked > 0
        with serving(config.root, lambda: UnitTrials(config)) as found:
            again = attempt(found, "simulate", unit["module"], int(unit["index"]), explanation="rivers")
        assert again.json == tries[0].json
        assert endpoint.requests == asked
    assert KEY not in again.body.decode()
