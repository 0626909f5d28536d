"""A run file is checked whole before anything runs, and every message says what to do."""

from pathlib import Path

import pytest

from pipeline.config.run_file import PRESETS, load_config, parse_config
from pipeline.errors import UserError
from stages.settings import SECTIONS

MINIMAL = {
    "run": {"name": "a"},
    "subject": {"model": "m", "modules": ["layers.0.mlp"]},
    "corpus": {"source": "c.txt"},
}


def changed(section: str, **values: object) -> dict[str, object]:
    old = MINIMAL.get(section, {})
    assert isinstance(old, dict)
    return {**MINIMAL, section: {**old, **values}}


def message(values: dict[str, object]) -> str:
    with pytest.raises(UserError) as caught:
        parse_config(values, "my.toml", SECTIONS)
    return str(caught.value)


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_preset_is_valid(preset: str) -> None:
    assert load_config(preset, SECTIONS).run.name == preset


def test_a_config_cannot_be_changed_after_it_was_read() -> None:
    config = parse_config(MINIMAL, "my.toml", SECTIONS)
    with pytest.raises(Exception, match="frozen"):
        config.run.seed = 1


def test_an_unknown_key_names_the_nearest_one() -> None:
    assert "unknown key 'corpus.seqlen'; did you mean 'seq_len'?" in message(changed("corpus", seqlen=3))


def test_an_unknown_section_lists_those_allowed() -> None:
    assert "did you mean 'simulate'" in message({**MINIMAL, "simulatte": {}})


def test_an_unknown_key_in_a_nested_section_names_the_nearest_one() -> None:
    text = message(changed("explain", engine={"model": "m", "dvice": "cpu"}))
    assert "unknown key 'explain.engine.dvice'; did you mean 'device'?" in text


def test_a_missing_key_is_named() -> None:
    assert "missing key 'subject.model'" in message({**MINIMAL, "subject": {"modules": ["x"]}})


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("corpus", {"seq_len": 0}, ["corpus.seq_len = 0", "greater than or equal to 2"]),
        ("corpus", {"seq_len": "64"}, ["corpus.seq_len = '64'", "integer"]),
        ("corpus", {"min_tokens": 65}, ["min_tokens = 65", "seq_len = 64"]),
        ("subject", {"device": "gpu"}, ["subject.device = 'gpu'"]),
        ("subject", {"dtype": "int8"}, ["subject.dtype = 'int8'", "'float32'"]),
        ("subject", {"modules": []}, ["subject.modules = []"]),
        ("subject", {"own": {"a": "x"}}, ["subject.own is called subject.precomputed now"]),
        ("subject", {"modules": ["own:a"]}, ["[subject.modules]", "'own:a' is called 'precomputed:a' now"]),
        ("corpus", {"source": "own:a"}, ["[corpus.source]", "'own:a' is called 'precomputed:a' now"]),
        ("run", {"name": "../x"}, ["run.name = '../x'"]),
        ("run", {"seed": -1}, ["run.seed = -1"]),
        ("record", {"shard_sequences": 33}, ["shard_sequences = 33", "batch_size = 32"]),
        ("record", {"quantiles": [0.9, 0.5]}, ["quantiles = [0.9, 0.5]", "rise"]),
        ("explain", {"units": "some"}, ["explain.units", "'some'"]),
        ("explain", {"explainer": "token_activation"}, ["needs a language model", "[explain.engine]"]),
        ("explain", {"negatives": "hard"}, ['explain.negatives = "hard"', "record.negatives"]),
        ("explain", {"context": 0}, ["explain.context = 0"]),
        ("simulate", {"simulator": "all_at_once"}, ["needs a language model", "[simulate.engine]"]),
        ("score", {"interval": 1.0}, ["score.interval = 1.0"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(section: str, values: dict[str, object], words: list[str]) -> None:
    text = message(changed(section, **values))
    for word in words:
        assert word in text


def test_tokens_of_the_weights_are_shown_only_where_they_are_recorded() -> None:
    values = {**changed("explain", output_tokens=True), "record": {"weight_tokens": 0}}
    assert "explain.output_tokens needs tokens from the weights; set record.weight_tokens" in message(values)


def test_a_file_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[run\n")
    with pytest.raises(UserError, match=r"not TOML.*line 1"):
        load_config(str(file), SECTIONS)


def test_a_missing_file_lists_the_presets() -> None:
    with pytest.raises(UserError, match="demo"):
        load_config("nothing.toml", SECTIONS)


ENGINE = {"model": "m", "base_url": "http://localhost:1/v1"}
SECRET = "sk-proj-SECRET-1234"


@pytest.mark.parametrize(
    "engine",
    [
        SECRET,
        [SECRET],
        ENGINE | {"key_variable": SECRET},
        ENGINE | {"base_url": f"user:{SECRET}@host/v1"},
        ENGINE | {"base_url": f"ftp://user:{SECRET}@host/v1"},
        ENGINE | {"headers": {"Authorization": [SECRET]}},
        ENGINE | {"headers": SECRET},
        ENGINE | {"body": [SECRET]},
        ENGINE | {"timeout": SECRET},
        ENGINE | {"mode": SECRET},
        ENGINE | {SECRET: 1},
        {"headers": {"Authorization": SECRET}},
    ],
    ids=str,
)
def test_no_message_shows_what_may_be_a_secret(engine: object) -> None:
    for values in (
        changed("explain", engine=engine),
        changed("judge", engine=engine),
        changed("run", name={"x": engine}),
    ):
        text = message(values)
        assert "SECRET" not in text
        assert "explain." in text or "judge." in text or "run." in text


def test_numbers_of_a_language_model_are_shown() -> None:
    assert "explain.engine.timeout = -5" in message(changed("explain", engine=ENGINE | {"timeout": -5}))
    text = message(changed("explain", engine=ENGINE | {"max-tokens": 5, "contxt": 5}))
    assert "unknown key 'explain.engine.contxt'; did you mean 'context'?" in text


@pytest.mark.parametrize("change", [SECRET, f"key={SECRET}", f"explain.engine.model={SECRET}", f"run.name.x={SECRET}"])
def test_a_change_on_the_command_line_is_told_without_its_value(change: str) -> None:
    with pytest.raises(UserError) as told:
        load_config("demo", SECTIONS, ["explain.engine.headers=5", change])
    assert "SECRET" not in str(told.value)
