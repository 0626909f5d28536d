"""Every setting is described from the sections themselves, and the run file that `init` writes is one."""

import tomllib

import pytest

from pipeline.config import LanguageModel, with_sections
from pipeline.config.reference import ENGINE, all_settings, as_run_file, as_text, settings_of, toml
from pipeline.config.run_file import load_config, parse_config
from pipeline.errors import UserError
from stages.settings import SECTIONS, Record

KIND = with_sections(SECTIONS)
GIVEN = {
    "run.name": '"mine"',
    "subject.model": '"m"',
    "subject.modules": '["layers.0.mlp"]',
    "corpus.source": '"c.txt"',
}
MINIMAL = {
    "run": {"name": "mine"},
    "subject": {"model": "m", "modules": ["layers.0.mlp"]},
    "corpus": {"source": "c.txt"},
}


def test_every_setting_of_every_section_is_described_and_has_a_meaning() -> None:
    found = {(one.section, one.name): one for one in all_settings(KIND)}
    for section in SECTIONS:
        assert {name for place, name in found if place == section.key} == set(section.model_fields)
    assert {name for place, name in found if place == ENGINE} == set(LanguageModel.model_fields)
    assert ("subject.black_boxes.NAME", "call") in found
    assert [key for key, one in found.items() if not one.meaning] == []


def test_a_setting_says_its_default_and_what_it_may_be() -> None:
    found = {(one.section, one.name): (one.default, one.kind) for one in all_settings(KIND)}
    assert found["record", "top"] == (
        "{ explain = 20, select = 10, report = 10 }",
        "a table of explain, select, report",
    )
    assert found["record", "batch_size"] == ("32", "integer, at least 1")
    assert found["score", "interval"] == ("0.95", "number, above 0, below 1")
    assert found["run", "name"] == (None, "text")
    assert found["corpus", "max_documents"] == ("", "integer, at least 1")


def test_the_run_file_with_every_setting_means_the_defaults() -> None:
    text = as_run_file(KIND, GIVEN)
    assert parse_config(tomllib.loads(text), "init.toml", SECTIONS) == parse_config(MINIMAL, "minimal.toml", SECTIONS)
    names = [f"\n# {one.name} = " in text or f"\n{one.name} = " in text for one in settings_of(KIND, "record")]
    assert all(names)


def test_a_setting_in_it_counts_once_its_comment_is_taken_away() -> None:
    text = as_run_file(KIND, GIVEN).replace("\n# batch_size = 32\n", "\nbatch_size = 64\n")
    assert parse_config(tomllib.loads(text), "init.toml", SECTIONS)[Record].batch_size == 64


@pytest.mark.parametrize("section", ["record", "subject.saes.NAME", ENGINE])
def test_one_section_is_printed_alone(section: str) -> None:
    printed = as_text(settings_of(KIND, section))
    assert printed.startswith(f"[{section}]")
    assert printed.count("\n[") == 0


def test_an_unknown_section_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'record'"):
        settings_of(KIND, "recrod")


@pytest.mark.parametrize("value", ['a "quoted" text', ["a", 1.5], {"x": [1], "y": {"z": True}}, 3, False])
def test_values_are_written_as_toml(value: object) -> None:
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


CHANGES = [
    ("explain.units=5", ("explain", "units"), 5),
    ("explain.explainer=statistics", ("explain", "explainer"), ["statistics"]),
    ('explain.units={"layers.4.mlp" = [1, 2]}', ("explain", "units"), {"layers.4.mlp": [1, 2]}),
    ("explain.engine.model=other", ("explain", "engine", "model"), "other"),
    ("run.name=other", ("run", "name"), "other"),
]


@pytest.mark.parametrize(("change", "path", "value"), CHANGES)
def test_a_setting_can_be_changed_from_outside(change: str, path: tuple[str, ...], value: object) -> None:
    found = load_config("demo", SECTIONS, [change])
    for name in path:
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize("change", ["units=5", "explain.units", "run.name.x=1"])
def test_a_change_that_is_none_is_refused(change: str) -> None:
    with pytest.raises(UserError, match="--set"):
        load_config("demo", SECTIONS, [change])


def test_an_unknown_setting_in_a_change_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown key 'explain\.unit'"):
        load_config("demo", SECTIONS, ["explain.unit=5"])
