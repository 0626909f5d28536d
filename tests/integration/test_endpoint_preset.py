"""The preset for an endpoint is the demo with a large model, and runs as it stands once it is given an address."""

from pathlib import Path

from pipeline.config.run_file import PRESETS, load_config
from stages.settings import SECTIONS, Explain, Record
from tests.integration.endpoint_run import KEY, files_with, rows, write_run
from tests.integration.made_up_model import reply
from tests.integration.reduced import call
from tests.pipeline.llm.endpoint.loopback import Loopback

PRESET = PRESETS / "endpoint.toml"


def test_it_records_what_the_demo_records() -> None:
    preset, demo = load_config(str(PRESET), SECTIONS), load_config("demo", SECTIONS)
    few = demo[Record].model_copy(update={"random": Record().random})  # sequences cost nothing to simulate in the demo
    assert (preset.subject, preset.corpus, preset[Record]) == (demo.subject, demo.corpus, few)
    assert preset[Explain].units == demo[Explain].units


def test_with_an_address_and_a_key_it_explains_and_simulates(tmp_path: Path, recorded: Path) -> None:
    text = PRESET.read_text()
    assert text.count("https://api.openai.com/v1") == 2
    assert text.count("units = 24") == 1
    with Loopback(reply) as server:
        text = text.replace("https://api.openai.com/v1", server.base_url).replace("units = 24", "units = 4")
        file = write_run(tmp_path, recorded, text[text.index("[explain]") :])
        done = call("run", "--config", str(file), OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    for table in ("explanations", "simulations"):
        found = rows(file, table)
        assert (found["status"] == "ok").all()
    assert set(rows(file, "scores")["index"]) == set(rows(file, "explanations")["index"])
    assert len({body["model"] for body in server.bodies}) == 1
    assert {body["reasoning_effort"] for body in server.bodies} == {"none"}
    assert {headers["authorization"] for path, headers in server.heads if "completions" in path} == {f"Bearer {KEY}"}
    assert not files_with(KEY, tmp_path)
