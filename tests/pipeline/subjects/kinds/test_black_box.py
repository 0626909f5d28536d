"""A function of texts as a source of activations: what it is asked, and how it may not answer."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import BlackBox
from pipeline.errors import UserError
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.kinds import black_box
from pipeline.subjects.kinds.black_box import BlackBoxActivations, BlackBoxTexts
from pipeline.subjects.kinds.callables import TooSlow, at_once, time_limit
from tests.pipeline.subjects.planted_functions import FUNCTIONS


@pytest.fixture(scope="module", autouse=True)
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of functions, in the working directory."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "boxes").mkdir()
    (folder / "boxes" / "planted.py").write_text(FUNCTIONS)
    (folder / "boxes" / "broken.py").write_text("import no_such_package_anywhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(folder))])
        yield


def opened(function: str, **settings: Any) -> BlackBoxActivations:
    box = BlackBox(call=f"boxes.planted:{function}", **settings)
    return BlackBoxActivations("black_box:test", box, lambda ids: "".join(chr(one) for one in ids if one))


def asked() -> list[list[str]]:
    """The calls so far, which are then forgotten."""
    calls: list[list[str]] = sys.modules["boxes.planted"].asked
    found = list(calls)
    calls.clear()
    return found


def batch(*texts: str) -> TokenBatch:
    """One token a character, 0 for a special token (`_`) and for padding."""
    lengths = np.asarray([len(text) for text in texts])
    ids = np.zeros((len(texts), lengths.max()), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = [0 if character == "_" else ord(character) for character in text]
    return TokenBatch(ids, lengths, np.arange(len(texts)))


def run(source: BlackBoxActivations, tokens: TokenBatch) -> Any:
    received: dict[str, Any] = {}
    source.run(tokens, received.__setitem__)
    return received["black_box:test"].numpy()


def test_a_token_has_the_value_of_the_window_that_ends_with_it() -> None:
    found = run(opened("pair", units=2, window=3), batch("banana", "ab"))
    assert found.shape == (2, 6, 2)
    assert found.dtype == np.float32
    assert found[0].tolist() == [[1, 0], [2, 1], [3, 1], [3, 2], [3, 1], [3, 2]]
    assert found[1, :2].tolist() == [[1, 1], [2, 1]]


def test_values_agree_with_one_call_a_text_whatever_the_batches() -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ab c"), size=rng.integers(1, 5))) for _ in range(300)]
    for size in (1, 7, 1000):
        values = opened("pair", units=2, batch_size=size).values(texts)
        assert values.dtype == np.float64
        assert values.tolist() == [[len(text), text.count("a")] for text in texts]


def test_equal_texts_are_asked_once_in_batches_of_similar_length() -> None:
    source = opened("length", batch_size=3)
    asked()
    texts = ["aa", "b", "cccc", "aa", "ddd", "b", "eeeee", "ff"]
    assert source.values(texts)[:, 0].tolist() == [len(text) for text in texts]
    calls = asked()
    assert [len(text) for call in calls for text in call] == [1, 2, 2, 3, 4, 5]
    assert max(map(len, calls)) == 3
    source.values(["cccc", "g"])
    assert asked() == [["g"]], "answers are remembered"


def test_the_memory_of_answers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.subjects.kinds.black_box.KEPT_BYTES", 5 * 208)
    source = opened("length")
    texts = [f"{number:03}" for number in range(40)]
    assert source.values(texts)[:, 0].tolist() == [3] * 40, "more texts than there is room for"
    asked()
    source.values([texts[-1], texts[0]])
    assert asked() == [[texts[0]]]


def test_no_texts_have_no_values() -> None:
    assert opened("pair", units=2).values([]).shape == (0, 2)


def test_special_tokens_are_no_text_and_windows_of_nothing_are_not_asked() -> None:
    source = opened("length", window=2)
    run(source, batch("zz"))
    asked()
    found = run(source, batch("__ab"))
    assert np.isnan(found[0, :2, 0]).all()
    assert found[0, 2:, 0].tolist() == [1, 2]
    assert asked() == [["a", "ab"]]


def test_values_that_are_not_finite_stay_so() -> None:
    found = run(opened("odd", window=1), batch("axyz"))
    assert found[0, 0, 0] == 1
    assert np.isnan(found[0, 1, 0])
    assert found[0, 2:, 0].tolist() == [np.inf, np.inf], "1e300 is beyond float32"


@pytest.mark.parametrize(("function", "first"), [("tensor", 2.0), ("flags", 0.0)])
def test_tensors_and_truth_values_are_numbers(function: str, first: float) -> None:
    assert opened(function).values(["ab"]).tolist() == [[first]]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("raises", r"raised ZeroDivisionError: .* at .*planted\.py:\d+ on 8 texts, the first 'a'"),
        ("leaves", r"raised SystemExit: 3 at .*planted\.py:\d+"),
        ("short", r"was given 8 texts and gave 7 values; expected 8 numbers"),
        ("one", r"gave one values; expected 8 numbers"),
        ("nothing", r"gave None, which are not numbers"),
        ("wide", r"shape \(8, 3\).*units = 1"),
        ("deep", r"shape \(8, 1, 1\)"),
        ("words", r"not numbers"),
        ("digits", r"not numbers"),
        ("ragged", r"expected 8 numbers"),
        ("complex_numbers", r"not numbers"),
        ("random", r"must be deterministic"),
        ("counter", r"treat each text by itself"),
        ("drifts", r"must be deterministic"),
        ("no_function", r"is 3 and cannot be called"),
        ("lenght", r"has no 'lenght'; did you mean 'length'"),
    ],
)
def test_what_is_no_such_function_is_told_at_opening(function: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"black_box:test.*{function}.*{says}"):
        opened(function, units=2 if function == "drifts" else 1)


def test_a_width_that_is_wrong_names_the_setting() -> None:
    with pytest.raises(UserError, match=r"expected an array \(8, 2\).*subject\.black_boxes\.test\.units = 2"):
        opened("wide", units=2)


def test_texts_of_the_corpus_are_asked_twice_too() -> None:
    source = opened("late")
    with pytest.raises(UserError, match="deterministic"):
        run(source, batch("abba"))


def test_units_that_are_near_0_on_the_few_texts_of_a_call_are_not_told_to_be_random() -> None:
    function = BlackBoxTexts(opened("wide_product", units=1000))
    texts = [f"text number {number}" for number in range(6000)]
    for start in range(0, 6000, 200):  # of each 200 one is asked again, by itself
        found = function.values(texts[start : start + 200])
        assert (abs(found[0]) < 1e-2 * abs(found).max(axis=0)).any()


def test_no_call_has_more_texts_than_the_batch_size() -> None:
    function = BlackBoxTexts(opened("eight", batch_size=8))
    texts = ["x" * number for number in range(1, 5001)]
    asked()
    assert function.values(texts)[:, 0].tolist() == list(range(1, 5001))
    assert sum(map(len, asked())) >= 5000 + 16, "some are asked again"
    opened("eight", batch_size=3)
    assert max(map(len, asked())) == 3, "those that are asked before anything else too"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("no.such.place:function", "no cannot be imported|no.such.place cannot be imported"),
        ("boxes.broken:function", "no_such_package_anywhere"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_reason(call: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        BlackBoxActivations("black_box:test", BlackBox(call=call))


def test_the_working_directory_is_importable() -> None:
    opened("length")
    assert str(Path.cwd()) in sys.path


def test_a_factory_is_called_once_with_its_arguments() -> None:
    source = opened("factory", arguments={"power": 2, "shift": 1})
    assert source.values(["ab", "abc"])[:, 0].tolist() == [5, 10]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"power": 10},
            r"factory raised OverflowError: too high at .*planted\.py:\d+ when it was called with .*test.arguments",
        ),
        ({"strength": 1}, r"factory raised TypeError: .*strength.*correct them"),
        ({"power": 0}, r"factory gave None for its arguments, expected a function"),
    ],
)
def test_arguments_that_make_no_function_are_told(arguments: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=rf"black_box:test: .*{says}"):
        opened("factory", arguments=arguments)


def test_a_function_that_does_not_come_back_is_ended() -> None:
    with pytest.raises(UserError, match=r"sleeps\) took more than 1 s for 8 texts; make it faster"):
        opened("sleeps", timeout=1)


def test_a_function_that_was_too_slow_is_not_called_again() -> None:
    source = opened("sleeps_once", timeout=1)
    asked()
    for texts in (["late"], ["in time"]):
        with pytest.raises(UserError, match=r"sleeps_once\) took more than 1 s for 1 texts"):
            source.values(texts)
    assert asked() == [["late"]]


def test_outside_the_main_thread_the_end_of_a_slow_block_is_waited_for() -> None:
    def work() -> str:
        try:
            with time_limit(0.01):
                time.sleep(0.05)
        except TooSlow:
            return "too slow"
        return "in time"

    with ThreadPoolExecutor() as pool:
        assert pool.submit(work).result() == "too slow"
    with time_limit(60):
        pass


def test_a_function_may_say_how_many_texts_it_is_given_at_a_time() -> None:
    sizes: list[int] = []

    def lengths(texts: list[str]) -> list[float]:
        sizes.append(len(texts))
        return [float(len(text)) for text in texts]

    at_once(lengths, 5)
    for box, expected in ((BlackBox(call="x:y"), 5), (BlackBox(call="x:y", batch_size=3), 3)):
        sizes.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(black_box, "open_function", lambda *_: lengths)
            BlackBoxActivations("black_box:x", box).values([f"text {number}" for number in range(12)])
        assert max(sizes) == expected
