"""Runs over an endpoint that misbehaves, and runs that are killed, interrupted, short of budget, or shared by workers."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from pipeline.llm.endpoint.circuit import IN_A_ROW
from tests.integration.endpoint_run import KEY, KEY_VARIABLE, NAME, files_with, rows, sections, write_run
from tests.integration.made_up_model import Json, reply
from tests.integration.reduced import all_rows, command
from tests.pipeline.llm.endpoint.loopback import Loopback

UNITS = 16
WAYS = [
    *("429", "429:1", "429:20ms", "408", "500", "503"),
    *("refuse", "reset", "drop", "silent", "empty", "truncated", "garbage"),
    *("refusal", "blank", "wrong_model", "wrong_length", "out_of_range", "nan"),
]
"""All that can go wrong with a request. Longer waits that an endpoint asks for are tested beside the sender."""
EXPLAINER = {"json": "max_activation", "generated": "token_activation", "one_at_a_time": "contrastive"}
TABLES = ("explanations", "simulations", "scores")
CONCURRENCY = 4


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A server in its senses, until a test says otherwise."""
    with Loopback(reply) as running:
        yield running


def write(
    folder: Path, recorded: Path, server: Loopback, simulator: str = "json", *, units: int = UNITS, more: str = ""
) -> Path:
    """A run file for a small run over the server."""
    text = sections(
        server.base_url,
        "loopback",
        EXPLAINER[simulator],
        simulator,
        units,
        concurrency=CONCURRENCY,
        more=more,
    )
    return write_run(folder, recorded, text)


def start(file: Path, *arguments: str, key: str = KEY) -> "subprocess.Popen[str]":
    """The pipeline in a process of its own."""
    return subprocess.Popen(
        [*command(*(arguments or ("run",))), "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {KEY_VARIABLE: key, "OPENAI_LOG": "debug"},
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code and everything printed."""
    printed = "".join(process.communicate(timeout=300))
    assert "Traceback" not in printed, printed
    assert KEY not in printed
    return process.returncode, printed


def until(requests: int, server: Loopback, process: "subprocess.Popen[str]") -> None:
    """Wait for the server's n-th request; the process has to be running still."""
    while server.requests < requests:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def assert_same(file: Path, wanted: Path) -> None:
    found, expected = all_rows(file.parent / NAME), all_rows(wanted.parent / NAME)
    for name in TABLES:
        assert found[name].num_rows > 0
        assert found[name].equals(expected[name]), name


@dataclass(frozen=True)
class Calm:
    """An undisturbed run, and what it took."""

    file: Path
    requests: int
    tokens: int


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, recorded: Path) -> Calm:
    """A run over a server in its senses."""
    with Loopback(reply) as server:
        file = write(tmp_path_factory.mktemp("calm"), recorded, server)
        code, printed = finish(start(file))
    assert code == 0, printed
    assert (rows(file, "explanations")["status"] == "ok").all()
    assert (rows(file, "simulations")["status"] == "ok").all()
    return Calm(file, server.requests, server.tokens)


@pytest.mark.parametrize(
    ("simulator", "units"),
    [
        pytest.param("json", 30, marks=pytest.mark.slow),
        pytest.param("generated", 30, marks=pytest.mark.slow),
        pytest.param("one_at_a_time", 2, marks=pytest.mark.slow),
    ],
)
def test_with_every_tenth_request_failing_each_unit_has_a_score_or_a_named_failure(
    tmp_path: Path, recorded: Path, server: Loopback, simulator: str, units: int
) -> None:
    ways = cycle(WAYS)
    server.script.extend(next(ways) if number % 10 == 9 else "ok" for number in range(10 * 10 * len(WAYS)))
    file = write(tmp_path, recorded, server, simulator, units=units, more="timeout = 1.0")
    code, printed = finish(start(file))
    assert {way.partition(":")[0] for way in WAYS} <= set(server.met), server.met
    explained = rows(file, "explanations")
    assert explained.groupby("index").size().size == units
    scored = rows(file, "scores")
    assert set(scored["index"]) == set(explained.query("status == 'ok'")["index"])
    failed = 0
    for name in TABLES:
        table = rows(file, name)
        assert (table.query("status == 'failed'")["error"].str.len() > 5).all(), name
        failed += int((table["status"] == "failed").sum())
    assert code == int(failed > 0), printed
    assert (scored["status"] == "ok").sum() >= 0.8 * units, printed
    assert not files_with(KEY, tmp_path)


@pytest.mark.slow
def test_rows_that_failed_are_mended_once_the_endpoint_is_well(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    server.faults, server.echo = {"500": 0.2}, True
    file = write(tmp_path, recorded, server, more="retries = 0")
    code, _ = finish(start(file))
    assert code == 1
    errors = rows(file, "simulations")["error"].dropna()
    assert errors.str.contains('"authorization": "***"', regex=False).all(), "the endpoint repeats the headers"
    assert not files_with(KEY, tmp_path)
    server.faults, paid = {}, server.met["ok"]
    code, printed = finish(start(file, "run", "--redo", "explain"))
    assert code == 0, printed
    assert server.met["ok"] - paid < calm.requests, "replies were paid for twice"
    assert_same(file, calm.file)


@pytest.mark.slow
def test_an_outage_fails_no_row(tmp_path: Path, recorded: Path, server: Loopback, calm: Calm) -> None:
    """It begins and ends while the run goes on; who asks once more asks for nothing."""
    file = write(tmp_path, recorded, server, more="retries = 2")
    process = start(file)
    until(40, server, process)
    server.faults = {"503": 1.0}
    time.sleep(8.0)
    server.faults = {}
    code, printed = finish(process)
    assert code == 0, printed
    assert "503" in printed
    assert "answers again" in printed
    tries = 3  # whether it is over, after 1, 3 and 7 seconds; a reply that was on its way has the row of failures begin anew
    assert server.met["503"] <= 2 * IN_A_ROW + CONCURRENCY + tries
    assert server.requests <= calm.requests + server.met["503"] + 2
    assert_same(file, calm.file)


@pytest.mark.slow
def test_an_outage_that_lasts_stops_the_run_and_publishes_no_failure(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    file = write(tmp_path, recorded, server, more="retries = 2, patience = 1.0")
    process = start(file)
    until(40, server, process)
    server.faults = {"503": 1.0}
    code, printed = finish(process)
    assert code == 2, printed
    assert "engine.patience" in printed
    server.faults = {}
    code, printed = finish(start(file))
    assert code == 0, printed
    assert_same(file, calm.file)


@pytest.mark.slow
def test_a_redo_asks_anew_for_what_was_of_no_use_and_for_nothing_else(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    useless = 0

    def spoilt(body: Json) -> Json:
        nonlocal useless
        made = reply(body)
        if (
            "units = " not in str(body)
            and sum(map(ord, str(body["messages"][-1]))) % 7 == 0
            and "response" in str(body)
        ):
            useless += 1
            made["choices"][0]["message"]["content"] = "nothing of use"
        return made

    server.reply = spoilt
    file = write(tmp_path, recorded, server)
    code, printed = finish(start(file))
    failed = int((rows(file, "simulations")["status"] == "failed").sum())
    assert code == 1, printed
    assert failed > 0
    server.reply, server.requests = reply, 0
    code, printed = finish(start(file, "run", "--redo", "simulate"))
    assert code == 0, printed
    assert (rows(file, "simulations")["status"] == "ok").all()
    assert 0 < server.requests <= useless


@pytest.mark.slow
def test_killed_at_three_moments_the_run_pays_no_reply_twice(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    server.latency = 0.02
    file = write(tmp_path, recorded, server)
    for further in (10, 30, 40):
        process = start(file)
        until(server.requests + further, server, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, printed = finish(start(file))
    assert code == 0, printed
    assert server.requests - calm.requests <= 3 * CONCURRENCY, "replies were paid for twice"
    assert_same(file, calm.file)


@pytest.mark.slow
@pytest.mark.parametrize(("how", "wanted"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_soon_and_loses_no_reply(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm, how: signal.Signals, wanted: int
) -> None:
    server.latency = 0.1
    file = write(tmp_path, recorded, server)
    process = start(file)
    until(30, server, process)
    process.send_signal(how)
    interrupted = time.monotonic()
    code, printed = finish(process)
    assert code == wanted
    assert "the same command carries on" in printed
    assert time.monotonic() - interrupted < 10
    code, printed = finish(start(file))
    assert code == 0, printed
    assert server.requests == calm.requests, "replies were paid for twice"
    assert_same(file, calm.file)


@pytest.mark.slow
def test_who_takes_over_the_shards_of_a_worker_that_is_told_to_end_asks_for_none_of_its_replies(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    server.latency = 0.2
    file = write(tmp_path, recorded, server)
    ended = start(file, "explain")
    until(4, server, ended)
    server.latency = 6.0
    other = start(file)
    while not list((tmp_path / NAME / "_claims" / "_workers").glob("0-of-1-2.*")):
        time.sleep(0.05)
    ended.send_signal(signal.SIGTERM)
    server.latency = 0.0
    assert finish(ended)[0] == 128 + signal.SIGTERM
    code, printed = finish(other)
    assert code == 0, printed
    assert server.requests == calm.requests, "replies were paid for twice"
    assert_same(file, calm.file)


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(tmp_path: Path, recorded: Path, server: Loopback) -> None:
    file = write(tmp_path, recorded, server)
    process = start(file)
    until(10, server, process)
    server.latency = 60.0
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(3.0)
    assert process.poll() is None, "replies in flight are waited for"
    process.send_signal(signal.SIGTERM)
    interrupted = time.monotonic()
    code, printed = finish(process)
    assert code == 143
    assert "replies in flight" in printed
    assert time.monotonic() - interrupted < 5


@pytest.mark.parametrize(("fault", "words"), [("401", "key"), ("404", "unknown model"), ("quota", "credit")])
def test_what_no_retry_can_mend_stops_the_run_at_once(
    tmp_path: Path, recorded: Path, server: Loopback, fault: str, words: str
) -> None:
    server.faults, server.echo = {fault: 1.0}, True
    file = write(tmp_path, recorded, server)
    code, printed = finish(start(file))
    assert code == 2
    assert words in printed
    assert server.requests <= 2 * CONCURRENCY
    assert not (tmp_path / NAME / "explanations").exists()
    assert not files_with(KEY, tmp_path)


def test_a_key_that_is_not_set_is_told_before_anything_is_asked(
    tmp_path: Path, recorded: Path, server: Loopback
) -> None:
    code, printed = finish(start(write(tmp_path, recorded, server), key=""))
    assert code == 2
    assert KEY_VARIABLE in printed
    assert server.requests == 0


@pytest.mark.slow
def test_the_budget_is_never_passed_and_a_raised_one_carries_on(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    file = write(tmp_path, recorded, server)
    text = file.read_text()
    for share in (0.3, 0.7):
        limit = int(calm.tokens * share)
        file.write_text(f"{text}\n[budget]\nmax_tokens_total = {limit}\n")
        code, printed = finish(start(file))
        assert code == 2
        assert f"{limit:,}" in printed or str(limit) in printed
        assert "max_tokens_total" in printed
        assert limit / 2 < server.tokens <= limit
    file.write_text(f"{text}\n[budget]\nmax_tokens_total = {calm.tokens * 10}\n")
    code, printed = finish(start(file))
    assert code == 0, printed
    assert server.requests == calm.requests, "replies were paid for twice"
    assert_same(file, calm.file)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [("--shard 0/2", "--shard 1/2"), ("", "")], ids=["by parts", "by claims"])
def test_two_workers_make_the_rows_of_one(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm, parts: tuple[str, str]
) -> None:
    file = write(tmp_path, recorded, server)
    for stage in ("explain", "simulate"):
        workers = [start(file, stage, *part.split()) for part in parts]
        assert [finish(worker)[0] for worker in workers] == [0, 0]
    code, printed = finish(start(file))
    assert code == 0, printed
    assert_same(file, calm.file)


@pytest.mark.slow
def test_who_takes_over_from_a_killed_worker_reads_the_replies_that_it_left(
    tmp_path: Path, recorded: Path, server: Loopback, calm: Calm
) -> None:
    file = write(tmp_path, recorded, server)
    workers = [start(file) for _ in range(2)]
    until(calm.requests // 2, server, workers[0])
    workers[0].kill()
    workers[0].communicate()
    code, printed = finish(workers[1])
    assert code == 0, printed
    asked = Counter(
        json.dumps(body) for body in server.bodies if len(body["messages"]) > 1
    )  # without those of the probes
    assert sum(asked.values()) - len(asked) <= CONCURRENCY, "more was asked again than was on its way"
    assert_same(file, calm.file)
