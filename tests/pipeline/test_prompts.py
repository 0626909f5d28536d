"""Prompt files: rendered, hashed, and never edited once used."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.prompts import Prompt, digests, problems, record, refuse_unknown_prompts


def test_no_used_version_of_a_prompt_was_edited_and_every_prompt_is_recorded() -> None:
    assert problems() == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "explain").mkdir()
    (tmp_path / "explain" / "ask.v1.jinja").write_text("What is it?\n")
    assert record(tmp_path) == ["explain/ask.v1.jinja"]
    assert problems(tmp_path) == []
    return tmp_path


def test_an_edited_version_is_named_with_the_version_to_add(folder: Path) -> None:
    (folder / "explain" / "ask.v1.jinja").write_text("What is it then?\n")
    message = (
        "prompts/explain/ask.v1.jinja was edited; restore it and put the new text into prompts/explain/ask.v2.jinja"
    )
    assert problems(folder) == [message]
    assert record(folder) == []
    assert problems(folder) == [message]  # recording again does not hide the edit


def test_a_new_version_is_named_until_it_is_recorded(folder: Path) -> None:
    (folder / "explain" / "ask.v2.jinja").write_text("What is it then?\n")
    assert problems(folder) == ["prompts/explain/ask.v2.jinja is not recorded; run: python -m pipeline.prompts"]
    assert record(folder) == ["explain/ask.v2.jinja"]
    assert problems(folder) == []


def test_a_version_that_is_gone_and_a_file_without_version_are_named(folder: Path) -> None:
    (folder / "explain" / "ask.v1.jinja").rename(folder / "explain" / "ask.jinja")
    messages = problems(folder)
    assert len(messages) == 2
    assert "prompts/explain/ask.jinja has no version in its name" in messages[0]
    assert "prompts/explain/ask.v1.jinja is gone" in messages[1]


def test_an_unknown_prompt_is_an_error_of_the_user() -> None:
    for call in (Prompt("explain/nothing.v9").render, Prompt("explain/nothing.v9").digests):
        with pytest.raises(UserError, match=r"no prompt 'explain/nothing\.v9'"):
            call()


def test_a_prompt_is_identified_with_the_examples_that_it_shows() -> None:
    found = Prompt("simulate/json.v1").digests()
    assert list(found) == ["simulate/json.v1.jinja", "simulate/fewshot.v1.toml"]
    assert found["simulate/json.v1.jinja"] == digests("simulate/json")["simulate/json.v1.jinja"]
    assert list(Prompt("explain/label.v1").digests()) == ["explain/label.v1.jinja"]


NAME = "judge/detection.v1"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of the user's own prompts, with one for the judge."""
    (tmp_path / "judge").mkdir()
    (tmp_path / f"{NAME}.jinja").write_text(
        '{% if part == "few_shot" %}judge/fewshot_detection.v1{% elif part == "system" %}Say yes.{% else %}{{ texts }}{% endif %}'
    )
    return tmp_path


def test_a_prompt_of_the_user_takes_the_place_of_the_one_of_its_name(own: Path) -> None:
    prompt, other = Prompt(NAME, str(own)), Prompt("judge/fuzzing.v1", str(own))
    refuse_unknown_prompts(str(own))
    assert prompt.part("system") == "Say yes."
    assert prompt.id == f"{own}/{NAME}"
    assert prompt.examples() == Prompt(NAME).examples()
    changed = {name for name, value in prompt.digests().items() if Prompt(NAME).digests()[name] != value}
    assert changed == {f"{NAME}.jinja"}
    assert (other.id, other.part("system"), other.digests()) == (
        "judge/fuzzing.v1", Prompt("judge/fuzzing.v1").part("system"), Prompt("judge/fuzzing.v1").digests(),
    )  # fmt: skip


def test_examples_of_the_user_take_the_place_of_those_of_their_name(own: Path) -> None:
    (own / "judge" / "fewshot_detection.v1.toml").write_text("question = []\n")
    assert Prompt(NAME, str(own)).examples() == {"question": []}


@pytest.mark.parametrize(
    ("text", "told"),
    [("{% if part %}", "Unexpected end of template"), ("{{ something }}", "'something' is undefined")],
)
def test_a_mistake_in_a_prompt_of_the_user_is_told_with_the_file(own: Path, text: str, told: str) -> None:
    (own / f"{NAME}.jinja").write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        Prompt(NAME, str(own)).part("system")
    assert str(own / f"{NAME}.jinja") in str(caught.value)


def test_a_folder_that_is_not_there_or_holds_something_else_is_refused(own: Path) -> None:
    refuse_unknown_prompts("")
    with pytest.raises(UserError, match=r"run\.prompts = .*no such folder"):
        refuse_unknown_prompts(str(own / "missing"))
    (own / "judge" / "detektion.v1.jinja").write_text("x")
    with pytest.raises(
        UserError, match=r"detektion\.v1\.jinja takes the place of no file.*did you mean 'judge/detection"
    ):
        refuse_unknown_prompts(str(own))
