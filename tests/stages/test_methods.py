"""Methods are named in run files: what is not in the table, or does not suit the model, is told with what would work."""

from typing import Any

import pytest

from pipeline.config.run_file import parse_config
from pipeline.config.section import choice, summaries
from pipeline.errors import UserError
from pipeline.llm.engine import Capabilities
from stages.explain import EXPLAINERS
from stages.judge import JUDGE_METHODS
from stages.methods import Method, model_use, require
from stages.score import SCORERS
from stages.settings import SECTIONS
from stages.simulate import BASELINES, SIMULATORS

TABLES = (EXPLAINERS, SIMULATORS, BASELINES, JUDGE_METHODS, SCORERS)
ENGINE = {"model": "m"}
ENDPOINT = {"model": "m", "base_url": "http://localhost:1/v1"}


def refused(**sections: Any) -> str:
    values = {
        "run": {"name": "r"},
        "subject": {"model": "m", "modules": ["layers.0.mlp"]},
        "corpus": {"source": "c.txt"},
    }
    with pytest.raises(UserError) as caught:
        parse_config(values | sections, "r.toml", SECTIONS)
    return str(caught.value)


@pytest.mark.parametrize("table", TABLES)
def test_every_name_of_a_table_stands_for_something_that_says_what_it_is(table: dict[str, str]) -> None:
    for summary in summaries(table).values():
        assert summary
        assert "\n" not in summary


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in (EXPLAINERS, SIMULATORS) for name in table])
def test_every_method_has_its_prompts(table: dict[str, str], name: str) -> None:
    method: Method = choice(table, name)
    for prompt in method.load_prompts(""):
        assert f"{prompt.name}.jinja" in prompt.digests()
    assert method.model != "asked" or method.prompts


@pytest.mark.parametrize(
    ("section", "setting", "wrong", "meant"),
    [
        ("explain", "explainer", "token_spaces", "token_space"),
        ("simulate", "simulator", "al_at_once", "all_at_once"),
        ("judge", "methods", ["detection", "fuzzin"], "fuzzing"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(section: str, setting: str, wrong: Any, meant: str) -> None:
    told = refused(**{section: {setting: wrong, "engine": ENGINE}})
    assert f"[{section}] {setting} = " in told
    assert f"did you mean {meant!r}? Allowed: " in told


def test_a_baseline_is_no_simulator_of_a_run() -> None:
    assert "allowed: word, " in refused(simulate={"simulator": "lookup"})


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"explain": {"explainer": "token_space"}}, 'explainer = "token_space" needs a language model; add [explain.engine]'),
        ({"simulate": {"simulator": "json"}}, 'simulator = "json" needs a language model; add [simulate.engine]'),
        ({"judge": {"methods": ["detection"]}}, 'methods = "detection" needs a language model; add [judge.engine]'),
        ({"explain": {"engine": ENDPOINT}}, 'explainer = "statistics" uses a model in this process; leave engine.base_url out'),
        ({"simulate": {"engine": ENDPOINT}}, 'simulator = "word" uses a model in this process; leave engine.base_url out'),
    ],
)  # fmt: skip
def test_a_method_and_a_model_that_do_not_suit_each_other_are_refused(sections: dict[str, Any], told: str) -> None:
    assert told in refused(**sections)


def test_a_method_that_needs_what_is_missing_names_one_that_works() -> None:
    with pytest.raises(UserError, match=r'simulator = "generated" or simulator = "json"'):
        require(Capabilities(), "simulator", "all_at_once", SIMULATORS)
    with pytest.raises(UserError, match=r'"all_at_once" needs.*simulator = "one_at_a_time"'):
        require(Capabilities(logprobs=20, reply_numbers=True), "simulator", "all_at_once", SIMULATORS)
    for name in ("word", "generated", "json"):
        require(Capabilities(), "simulator", name, SIMULATORS)
    require(Capabilities(reply_numbers=True, prompt_numbers=True), "simulator", "all_at_once", SIMULATORS)


def test_only_methods_that_ask_use_a_model_by_its_engine() -> None:
    config = parse_config(
        {
            "run": {"name": "r"},
            "subject": {"model": "m", "modules": ["layers.0.mlp"]},
            "corpus": {"source": "c.txt"},
            "explain": {"engine": ENGINE},
        },
        "r.toml",
        SECTIONS,
    )
    engine = next(config.language_models())
    assert model_use("explainer", "statistics", EXPLAINERS, engine) is None
    assert model_use("explainer", "token_space", EXPLAINERS, None) is None
    use = model_use("explainer", "token_space", EXPLAINERS, engine)
    assert use is not None
    assert use.method == "explainer token_space"
