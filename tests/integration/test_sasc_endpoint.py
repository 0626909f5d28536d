"""SASC with a language model behind an endpoint: what is asked, what it costs, and what becomes of faults."""

from itertools import cycle
from pathlib import Path

import pandas as pd
import pytest

from pipeline.commands.demands import demands
from pipeline.config.run_file import load_config
from stages import STAGES
from stages.settings import SECTIONS
from tests.integration.endpoint_run import KEY, KEY_VARIABLE
from tests.integration.made_up_model import reply
from tests.integration.reduced import call
from tests.integration.small_sasc import write_run_file
from tests.pipeline.llm.endpoint.loopback import Loopback

ENGINE = """
explainer = "language_model"
synthesizer = "language_model"
[sasc.explain_engine]
base_url = "{url}"
model = "large"
key_variable = "{key}"
timeout = {timeout}
price_in = 1000.0
price_out = 1000.0
[sasc.synthesize_engine]
base_url = "{url}"
model = "large"
key_variable = "{key}"
timeout = {timeout}
"""
ASKED = {"explain.sasc": "You study a function", "synthesize": "You write short texts"}
WAYS = ["429", "500", "503", "reset", "silent", "empty", "truncated", "garbage", "refusal", "blank"]


def run(file: Path, *arguments: str) -> tuple[int, str]:
    done = call("run", "--config", str(file), *arguments, **{KEY_VARIABLE: KEY})
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def rows(file: Path, table: str) -> pd.DataFrame:
    return pd.read_parquet(file.parent / "sasc" / table)


def asked(server: Loopback, stage: str) -> int:
    """Requests of a stage that the server has answered."""
    return sum(body["messages"][0]["content"].startswith(ASKED[stage]) for body in server.bodies if "messages" in body)


@pytest.mark.slow
def test_it_asks_for_what_was_estimated_and_once(tmp_path: Path) -> None:
    with Loopback(reply) as server:
        file = write_run_file(tmp_path / "run", more=ENGINE.format(url=server.base_url, key=KEY_VARIABLE, timeout=60))
        expected = {demand.stage: demand.usage.calls for demand in demands(load_config(str(file), SECTIONS), STAGES)}
        assert expected == {"explain.sasc": (3 + 20) * 2, "synthesize": (3 + 20) * 2 * 2}, (
            "null units are asked about too"
        )
        code, printed = run(file)
        assert code == 0, printed
        assert {stage: asked(server, stage) for stage in ASKED} == expected
        again, _ = run(file, "--redo", "explain.sasc")
        assert again == 0
        assert {stage: asked(server, stage) for stage in ASKED} == expected, "all replies are kept"
    assert set(rows(file, "synthetic_texts")["origin"]) == {"written"}
    assert set(rows(file, "synthetic_texts")["model"]) == {"large"}
    published = rows(file, "sasc_scores").query("status != 'not_selected'")
    assert set(published["status"]) == {"ok"}
    used = next(
        line
        for line in call("status", "--config", str(file)).stdout.splitlines()
        if line.split()[:2] == ["explain.sasc", "large"]
    )
    tokens = rows(file, "themes")[["prompt_tokens", "completion_tokens"]].to_numpy().sum()
    assert f"{tokens / 1000:,.4f}" in used


def test_with_faults_each_unit_has_a_score_or_a_named_failure(tmp_path: Path) -> None:
    ways = cycle(WAYS)
    with Loopback(reply) as server:
        server.script.extend(next(ways) if number % 5 == 4 else "ok" for number in range(1000))
        more = ENGINE.format(url=server.base_url, key=KEY_VARIABLE, timeout=2)
        file = write_run_file(tmp_path / "run", nulls=0, more=more)
        code, printed = run(file)
    assert len(set(server.met) & set(WAYS)) >= 6, server.met
    scores = rows(file, "sasc_scores")
    failed = scores.query("status == 'failed'")
    assert code == (1 if len(failed) or (rows(file, "synthetic_texts")["status"] == "failed").any() else 0), printed
    assert failed["error"].notna().all()
    assert set(scores.query("status == 'ok'")["index"]) | set(failed["index"]) == {0, 1, 3}
    assert scores.query("status == 'ok'")["score"].notna().all()
    texts = rows(file, "synthetic_texts")
    assert not texts.query("status == 'ok'").duplicated(["module", "index", "candidate", "text"]).any()
