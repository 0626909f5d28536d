"""Explainer, simulator and judge each with an engine of its own, and the judge's scores beside the correlations."""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, sections, write_run
from tests.integration.made_up_model import reply
from tests.integration.reduced import all_rows, call
from tests.pipeline.llm.endpoint.loopback import Loopback

JUDGE = """
[judge]
methods = ["detection", "fuzzing"]
controls = 1
engine = {{ base_url = "{base_url}", model = "judge-model" }}
"""


def test_a_judge_with_its_own_engine(tmp_path: Path, recorded: Path) -> None:
    with Loopback(reply) as others, Loopback(reply) as server:
        text = sections(others.base_url, "loopback", "max_activation", "json", 4) + JUDGE.format(
            base_url=server.base_url
        )
        file = write_run(tmp_path, recorded, text)
        done = call("run", "--config", str(file), **{KEY_VARIABLE: KEY})
        assert done.returncode == 0, done.stderr
        assert {body["model"] for body in server.bodies} == {"judge-model"}
        assert "judge-model" not in {body["model"] for body in others.bodies}
        assert not any("authorization" in headers for _, headers in server.heads), "it has no key"
    folder = tmp_path / NAME
    scores, texts = pd.read_parquet(folder / "example_scores"), pd.read_parquet(folder / "judgements")
    published = pd.read_parquet(folder / "scores").query("status == 'ok' or status == 'undefined'")
    assert set(zip(scores["index"], scores["method"], strict=True)) == {
        (index, method) for index in published["index"] for method in ("detection", "fuzzing")
    }
    assert (texts["status"] == "ok").all()
    for row in scores.query("method == 'detection'").to_dict("records"):
        own = texts[(texts["index"] == row["index"]) & (texts["method"] == "detection") & (texts["control"] == "")]
        rights = [(own[own["fits"] == kind]["says"] == kind).mean() for kind in (True, False)]
        assert row["balanced_accuracy"] == np.mean(rights)
        assert own["seq_id"].mod(4).eq(3).all(), "all texts are of the report split"
    found = (
        duckdb.connect()
        .execute(
            f"SELECT s.correlation, e.balanced_accuracy FROM '{folder}/scores/*.parquet' s "
            f"JOIN '{folder}/example_scores/*.parquet' e USING (module, \"index\", polarity, explainer, candidate)"
        )
        .fetchall()
    )
    assert len(found) == len(scores)
    before = all_rows(folder)
    assert call("judge", "--config", str(file), "--redo", "judge", **{KEY_VARIABLE: KEY}).returncode == 0
    assert all_rows(folder) == before, "made again from the cache, with no server to ask"
