"""Explainer, simulator and judge each with an engine of its own, and the judge's scores beside the correlations."""

import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline import open_run
from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, sections, write_run
from tests.integration.made_up_model import reply
from tests.integration.reduced import all_rows, call
from tests.pipeline.llm.endpoint.batch_service import BatchService
from tests.pipeline.llm.endpoint.loopback import Loopback
from tests.pipeline.llm.endpoint.model_server import serving
from tests.pipeline.llm.endpoint.served_model import ServedModel, served

JUDGE = """
[judge]
methods = ["detection", "fuzzing", "intruder", "embedding"]
controls = 1
texts = 3
engine = {{ base_url = "{base_url}", model = "{model}"{more} }}
"""

METHODS = ("detection", "fuzzing", "intruder", "embedding")


SECOND = """
[judge.variants.second]
methods = ["detection"]
engine = {{ base_url = "{base_url}", model = "second-model" }}
"""


def test_two_judges_each_with_its_own_engine(tmp_path: Path, recorded: Path) -> None:
    with Loopback(reply) as others, Loopback(reply) as server:
        text = sections(others.base_url, "loopback", "max_activation", "json", 4)
        text += JUDGE.format(base_url=server.base_url, model="judge-model", more="")
        text = text.replace('"embedding"]', '"embedding", "second"]') + SECOND.format(base_url=others.base_url)
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
        (index, method) for index in published["index"] for method in (*METHODS, "second")
    }
    for table in (scores, texts):
        assert set(table.query("method in ('detection', 'fuzzing', 'intruder')")["model"]) == {"judge-model"}
        assert set(table.query("method == 'second'")["model"]) == {"second-model"}
    assert set(pd.read_parquet(folder / "scores")["model"]) == {"loopback"}
    agreed = open_run(folder).agreements().to_dict("records")
    [detection] = [
        row for row in agreed if (row["first"], row["second"]) == ("detection (judge-model)", "second (second-model)")
    ]
    assert detection["texts"] == len(texts.query("method == 'second'")) > 0, "both were asked about the same texts"
    assert -0.5 < detection["kappa"] < 0.5, "both draw their answers"
    compared = call("compare", str(folder))
    assert compared.returncode == 0, compared.stderr
    assert "second (second-model)" in compared.stdout
    assert "kappa: Cohen's" in compared.stdout
    assert (texts["status"] == "ok").all()
    assert (scores["status"] == "ok").all()
    assert (scores["n_fitting"] == scores["n_other"]).sum() == 4 * len(published), (
        "but for intruder, as many of either kind"
    )
    seen = pd.read_parquet(folder / "exemplars").query("split != 'report'")
    assert not set(seen["seq_id"]) & set(texts["seq_id"]), (
        "no text is one that explained the unit or chose among its explanations"
    )
    corpus = pd.read_parquet(folder / "corpus").set_index("seq_id")
    documents = corpus.groupby("split")["doc_id"].agg(set)
    assert not documents["report"] & (documents["explain"] | documents["select"])
    assert "scores on examples" in done.stdout
    assert re.search(r"embedding +\S+ +\S+ +0.500 +4", done.stdout), done.stdout
    controls = set(texts.query("control == 'shuffled'")["source"])
    assert controls <= set(published["index"]), "the explanations that were published for other units"
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


@pytest.mark.slow
def test_a_judge_in_batch_mode_asks_for_everything_of_a_method_in_one_batch(tmp_path: Path, recorded: Path) -> None:
    with Loopback(reply) as others, serving(ServedModel(served())) as server:
        server.batches = BatchService(lambda _, body: (200, reply(body)))
        text = sections(others.base_url, "loopback", "max_activation", "json", 4)
        text += JUDGE.format(base_url=server.url, model="tiny", more=', mode = "batch"')
        file = write_run(tmp_path, recorded, text)
        done = call("run", "--config", str(file), **{KEY_VARIABLE: KEY})
        assert done.returncode == 0, done.stderr + done.stdout
        judged = pd.read_parquet(tmp_path / NAME / "judgements")
        assert (judged["status"] == "ok").all()
        assert set(judged["control"]) == {"", "shuffled"}
        assert len(server.batches.batches) == 3, "one for each method that asks"
