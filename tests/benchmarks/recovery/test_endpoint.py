"""The benchmark asks a language model behind an endpoint, and goes on where that one fails."""

import asyncio
import json
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.llm.engine import Completion, Request
from pipeline.subjects.embedder import load_embedder
from stages.explain.explain_units import ExplanationError
from tests.benchmarks import bench_recovery
from tests.benchmarks.recovery.figures import by_kind, figures
from tests.benchmarks.recovery.harness import Outcome, explain_half
from tests.benchmarks.recovery.modules import SETTINGS
from tests.benchmarks.recovery.test_harness import FEW, Told, WordsEncoder
from tests.integration.made_up_model import reply
from tests.pipeline.llm.endpoint.loopback import Loopback

MODULES = 4
"""Planted and null ones of a setting and half, with `--few 2`; as many references as null ones beside them."""
ASKED = {"explainer": "You study a function", "synthesizer": "You write short texts"}


@pytest.fixture(scope="module")
def embedder() -> bench_recovery.RememberingEmbedder:
    return bench_recovery.remembering(load_embedder())


@pytest.fixture(autouse=True)
def remembered(embedder: bench_recovery.RememberingEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test has embedded no other one embeds again."""
    monkeypatch.setattr(bench_recovery, "remembering", lambda _: embedder)


def printed(capsys: pytest.CaptureFixture[str], settings: Sequence[str], *options: str) -> list[str]:
    """The lines of a run of the benchmark with --few 2."""
    bench_recovery.main(["--few", "2", "--seeds", "1", "--half", "tuning", "--settings", *settings, *options])
    return capsys.readouterr().out.splitlines()


def measured(server: Loopback, settings: Sequence[str], capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    """The last line of such a run over the server."""
    endpoint = ["--model", "large", "--base-url", server.base_url, "--timeout", "2", "--retries", "1"]
    return json.loads(printed(capsys, settings, *endpoint, *more)[-1])


def asked(server: Loopback, part: str) -> int:
    return sum(body["messages"][0]["content"].startswith(ASKED[part]) for body in server.bodies if "messages" in body)


def of_embedded(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.startswith("tuning_")}


@pytest.mark.slow
@pytest.mark.parametrize("parts", [["explainer"], ["synthesizer"], ["explainer", "synthesizer"]])
def test_the_endpoint_is_asked_for_each_module_in_every_setting(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--explainer", "language_model" if "explainer" in parts else "embedded"]
    options += ["--synthesizer", "language_model"] if "synthesizer" in parts else []
    settings = SETTINGS if len(parts) == 2 else SETTINGS[:1]
    with Loopback(reply) as server:
        found = measured(server, settings, capsys, *options)
    for part in ASKED:
        assert (asked(server, part) >= len(settings) * (MODULES + 2)) == (part in parts), part
    prefix = "endpoint_tuning_" if "explainer" in parts else "tuning_"
    assert found[prefix + "failed"] == 0
    for setting in settings:
        assert found[f"{prefix}nulls_{setting}"] == 2
        assert all(found[f"{prefix}{name}_{setting}"] is not None for name in ("accuracy", "similarity", "shown"))
    assert any(name.startswith("endpoint_") for name in found) == ("explainer" in parts)


@pytest.mark.slow
def test_one_run_gives_the_figures_of_both_explainers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as it has them alone, under keys of their own."""
    monkeypatch.setenv("LARGE_KEY", "s3cret-of-the-endpoint")
    with Loopback(reply) as server:
        endpoint = ["--model", "large", "--base-url", server.base_url, "--key-variable", "LARGE_KEY"]
        lines = printed(capsys, SETTINGS[:2], *endpoint)
        known = asked(server, "explainer")
        alone = json.loads(printed(capsys, SETTINGS[:2], *endpoint, "--explainer", "language_model")[-1])
        assert {headers["authorization"] for _, headers in server.heads} == {"Bearer s3cret-of-the-endpoint"}
    found, embedded = json.loads(lines[-1]), json.loads(printed(capsys, SETTINGS[:2])[-1])
    assert known
    assert of_embedded(found) == of_embedded(embedded)
    assert {"endpoint_" + name for name in of_embedded(found)} == {
        name for name in found if name.startswith("endpoint_")
    }
    assert all(alone[name] == value for name, value in found.items() if name.startswith("endpoint_"))
    assert of_embedded(alone) == {}
    titles = [line for line in lines if line.startswith("explainer ")]
    assert sorted(titles) == ["explainer embedded", "explainer language_model: large behind the endpoint"]
    assert "s3cret" not in "".join(lines)
    assert found["model"] == "large"


class Labeller:
    """Answers as a small model would."""

    name = "small"

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.asked = model.model, 0

    async def complete(self, request: Request) -> list[Completion]:
        assert request.messages[0].content.startswith("Each line lists some words")
        self.asked += 1
        return [Completion("modern astronomy", 20, 3, finished=True)]


@pytest.mark.slow
def test_a_label_is_asked_of_the_named_model_for_the_embedded_explainer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Labeller] = []

    def open_labeller(model: LanguageModel) -> Labeller:
        made.append(Labeller(model))
        return made[-1]

    monkeypatch.setattr(bench_recovery, "load_engine_model", lambda model: model)
    monkeypatch.setattr(bench_recovery, "InProcessEngine", open_labeller)
    lines, plain = printed(capsys, SETTINGS[:1], "--label", "package:some"), printed(capsys, SETTINGS[:1])
    assert [labeller.model for labeller in made] == ["package:some"]
    assert made[0].asked >= MODULES + 2
    assert "explainer embedded, labels by package:some" in lines
    assert "modern astronomy" in "".join(lines)
    assert "modern astronomy" not in "".join(plain)
    assert (json.loads(lines[-1])["label"], json.loads(plain[-1])["label"]) == ("package:some", None)
    assert of_embedded(json.loads(lines[-1])).keys() == of_embedded(json.loads(plain[-1])).keys()


@pytest.mark.slow
def test_faults_of_the_endpoint_do_not_stop_it(capsys: pytest.CaptureFixture[str]) -> None:
    ways = cycle(["garbage", "500", "empty", "blank", "truncated", "refusal", "reset"])
    options = ("--explainer", "language_model", "--synthesizer", "language_model")
    with Loopback(reply) as server:
        server.script.extend(next(ways) if number > 20 and number % 3 == 0 else "ok" for number in range(5000))
        found = measured(server, SETTINGS[:2], capsys, *options)
    failed = found["endpoint_tuning_failed"]
    assert {"garbage", "500", "empty", "blank"} <= set(server.met)
    assert 0 <= failed < 2 * MODULES
    assert failed == sum(found[f"endpoint_tuning_failed_{setting}"] for setting in SETTINGS[:2])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["garbage", "500", "blank"])
def test_where_nothing_is_answered_everything_is_a_miss(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the endpoint's explainer, while the embedded one beside it goes on."""
    with Loopback(reply) as server:
        assert measured(server, SETTINGS[:1], capsys, "--retries", "0")["endpoint_tuning_failed"] == 0
        probes = len(server.bodies) - asked(server, "explainer")
    with Loopback(reply, script=["ok"] * probes, faults={fault: 1.0}) as server:
        found = measured(server, SETTINGS[:1], capsys, "--retries", "0")
    assert found["endpoint_tuning_failed"] == found["endpoint_tuning_failed_default"] == MODULES
    assert found["endpoint_tuning_accuracy_default"] == found["endpoint_tuning_any_of_5_default"] == 0
    assert found["endpoint_tuning_null_false_discovery"] is found["endpoint_tuning_similarity_default"] is None
    assert found["endpoint_tuning_nulls"] == 0
    assert found["tuning_failed"] == 0 < found["tuning_accuracy_default"]


def test_a_key_that_is_refused_stops_it_before_anything_else_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_recovery, "EmbeddedSummariser", None)
    with Loopback(reply, faults={"401": 1.0}) as server, pytest.raises(UserError):
        measured(server, SETTINGS[:1], capsys)


class Faulty(Told):
    """Fails on the modules whose strongest n-gram it is told."""

    def __init__(self, explanations: list[str], fails: set[str], silent: set[str]) -> None:
        super().__init__(explanations)
        self.fails, self.silent, self.mute = fails, silent, set[int]()

    async def explain(self, ranked: Sequence[tuple[str, float]], seed: int) -> list[str]:
        if ranked[0][0] in self.fails:
            raise ExplanationError("no usable reply")
        if ranked[0][0] in self.silent:
            self.mute.add(seed)
        return self.explanations

    async def texts(self, explanation: str, seed: int) -> tuple[list[str], list[str]]:
        return ([], []) if seed in self.mute else await super().texts(explanation, seed)

    def score(self, relevant: Any, baseline: Any, sigma: float) -> float:
        return super().score(relevant, baseline, sigma) if len(relevant) else float("nan")


def test_what_fails_is_a_miss_and_counted_and_no_made_up_number() -> None:
    keywords = [concept.keyword for concept in FEW]

    def outcomes(fails: set[str], silent: set[str]) -> list[Outcome]:
        method = Faulty([keywords[0]], fails, silent)
        return asyncio.run(explain_half(FEW, False, "default", 0, method, WordsEncoder()))

    calm = outcomes(set(), set())
    planted, null = next(row for row in calm if any(row.right())), next(row for row in calm if row.concept is None)
    assert figures(calm, WordsEncoder())["failed"] == 0
    bad: set[str] = {planted.top[0], null.top[0]}
    for rows in (outcomes(bad, set()), outcomes(set(), bad)):
        found = figures(rows, WordsEncoder())
        failed = [row for row in rows if row.winner is None]
        assert {(row.module, row.concept) for row in failed} >= {(row.module, row.concept) for row in (planted, null)}
        assert found["failed"] == len(failed)
        assert found["accuracy"] == 0 != figures(calm, WordsEncoder())["accuracy"]
        assert by_kind(rows)[planted.concept.kind if planted.concept else ""] == 0
        assert found["nulls"] == sum(row.concept is None and row.winner is not None for row in rows)
        assert len(rows) == len(calm)
