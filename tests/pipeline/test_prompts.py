"""Prompt files: rendered, hashed, and never edited once used."""

from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.prompts import digest, digests, digests_with_examples, problems, record, render


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
    for call in (render, digest):
        with pytest.raises(UserError, match=r"no prompt 'explain/nothing\.v9'"):
            call("explain/nothing.v9")


def test_a_prompts_digest_is_that_of_its_file() -> None:
    assert digests("simulate/all_at_once")["simulate/all_at_once.v1.jinja"] == digest("simulate/all_at_once.v1")


def test_a_prompt_is_identified_with_the_examples_that_it_shows() -> None:
    assert list(digests_with_examples("simulate/json.v1")) == ["simulate/json.v1.jinja", "simulate/fewshot.v1.toml"]
    assert list(digests_with_examples("explain/label.")) == ["explain/label.v1.jinja"]
