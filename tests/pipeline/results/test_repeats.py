"""Runs that differ in the seed alone are found beside a run, and what their scores have in common is told from luck."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.compare import print_comparison
from pipeline.commands.query import final_report
from pipeline.config import RunConfig
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from pipeline.execution.frozen_run_file import freeze
from pipeline.results.repeats import luck, repeated, repeats_of, spread
from stages import REPORTS
from stages.settings import SECTIONS
from tests.pipeline.report.made_up_run import write_run

UNITS = 6


def config(folder: Path, **settings: Any) -> RunConfig:
    run = {"name": "run", "folder": str(folder), "seed": 4}
    corpus = {"source": "c.txt", **settings}
    return parse_config(
        {"run": run, "subject": {"model": "m", "modules": ["layers.0.mlp"]}, "corpus": corpus}, "r.toml", SECTIONS
    )


def write(made: RunConfig, scores: Any) -> Path:
    """A run whose units have these scores."""
    root = write_run(made.root, UNITS)
    [file] = (root / "scores").glob("*.parquet")
    table = pq.read_table(file)
    rows = table.to_pandas().assign(correlation=scores)
    pq.write_table(pa.Table.from_pandas(rows, table.schema, preserve_index=False), file)
    kept = {"format": 1, "seed": made.run.seed, "machines": [], "stages": [], **freeze(made)}
    (root / "provenance.json").write_text(json.dumps(kept), encoding="utf-8")
    return root


def test_repeats_have_other_seeds_the_same_units_and_folders_of_their_own(tmp_path: Path) -> None:
    first = config(tmp_path)
    found = [repeated(first, number).run for number in range(3)]
    assert [(run.name, run.seed, run.units_seed) for run in found] == [
        ("run", 4, None),
        ("run-seed5", 5, 4),
        ("run-seed6", 6, 4),
    ]


def test_the_spread_of_repeats_is_told_by_compare_and_report_and_other_runs_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = np.random.default_rng(0).random((3, UNITS))
    roots = [write(repeated(config(tmp_path), number), row) for number, row in enumerate(scores)]
    assert luck(write(repeated(config(tmp_path / "alone"), 0), scores[0])) == []
    write(repeated(config(tmp_path, seq_len=32), 5), scores[0])
    assert repeats_of(roots[1]) == roots
    found = spread(roots)
    [row] = found[found["score"] == "correlation"].to_dict("records")
    assert (row["explainer"], row["simulator"], row["units"], row["runs"]) == ("statistics", "word", UNITS, 3)
    assert row["mean"] == pytest.approx(scores.mean())
    assert row["sd"] == pytest.approx(np.std(scores.mean(axis=1), ddof=1))
    assert row["sd_unit"] == pytest.approx(np.sqrt(np.var(scores, axis=0, ddof=1).mean()))
    said = (
        f"mean correlation {row['mean']:.3f}, standard deviation {row['sd']:.3f}; that of one unit {row['sd_unit']:.3f}"
    )
    assert said in final_report(roots[0], 4, REPORTS)
    print_comparison(roots[0], roots[1:], "table")
    assert "They differ in the seed alone" in capsys.readouterr().out
    print_comparison(roots[0], [tmp_path / "run-seed9"], "table")
    assert "They differ in the seed alone" not in capsys.readouterr().out


def test_units_that_one_run_could_not_score_are_left_out(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).random((2, UNITS))
    scores[1, 0] = np.nan
    found = spread([write(repeated(config(tmp_path), number), row) for number, row in enumerate(scores)])
    row = found[found["score"] == "correlation"].iloc[0]
    assert (row["units"], row["mean"]) == (UNITS - 1, pytest.approx(scores[:, 1:].mean()))


def test_a_run_alone_has_no_spread(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="python -m pipeline repeat"):
        spread([tmp_path])
