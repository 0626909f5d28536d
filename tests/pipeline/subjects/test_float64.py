"""Devices without float64 (MPS): values leave them before they become double, by a tensor that says that it lies on one."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from pipeline.black_boxes.class_logit import class_logit
from pipeline.black_boxes.dictionary import dictionary
from pipeline.black_boxes.hidden import HiddenStates
from pipeline.black_boxes.next_word import next_word
from pipeline.black_boxes.ridge import ridge
from pipeline.subjects.activations import with_float64
from pipeline.subjects.kinds.black_box import _off_the_device
from stages.sasc.responses import ModuleResponses
from tests.pipeline.black_boxes.test_model_boxes import save_classifier

TEXTS = ["The quick brown fox", "dog", "jumps over the lazy"]


class OnMps(torch.Tensor):
    """A tensor of the CPU that takes itself for one of MPS."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        if func == torch.Tensor.device.__get__:
            return torch.device("mps")
        found = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        return plain(found) if func == torch.Tensor.cpu else found


def plain(values: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return values.as_subclass(torch.Tensor)


def on_mps(values: torch.Tensor) -> torch.Tensor:
    return values.as_subclass(OnMps)


@pytest.fixture
def models_on_mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever models give lies on MPS."""
    each = HiddenStates.each

    def moved(self: HiddenStates, texts: Sequence[str]) -> Iterator[Any]:
        for places, hidden, counted in each(self, texts):
            yield places, on_mps(hidden), counted

    def hook(_: Any, __: Any, output: Any) -> None:
        if hasattr(output, "logits"):
            output.logits = on_mps(output.logits)

    monkeypatch.setattr(HiddenStates, "each", moved)
    handle = register_module_forward_hook(hook)
    yield
    handle.remove()


def test_only_what_lies_on_such_a_device_is_moved() -> None:
    values = torch.ones(2)
    assert with_float64(values) is values
    with pytest.raises(TypeError, match="float64"):
        on_mps(values).double()
    assert with_float64(on_mps(values)).double().tolist() == [1, 1]


def test_responses_and_answers_of_functions_are_taken_in() -> None:
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = []
    for given in (values, on_mps(values)):
        responses = ModuleResponses("m", [0, 1, 2], 4, 4)
        responses.add(np.arange(6), given)
        found.append(responses.rows())
    assert found[0].equals(found[1])
    assert _off_the_device(on_mps(values)).tolist() == values.tolist()


@pytest.mark.usefixtures("models_on_mps")
def test_black_boxes_that_run_a_model_give_the_same_values(tiny_llama: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.random.default_rng(0).normal(size=(3, 16)))
    save_classifier(tmp_path / "classifier", "encoder")
    file, model = str(tmp_path / "w.npy"), str(tiny_llama)
    functions = {
        "dictionary": dictionary(file, model, 0, penalty=0.01),
        "ridge": ridge(file, features="hidden", model=model, layer=0),
        "next_word": next_word(["a", "x"], model, against=["b"]),
        "class_logit": class_logit(str(tmp_path / "classifier")),
    }
    on_it = {name: function(TEXTS) for name, function in functions.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.pipeline.subjects.test_float64.on_mps", lambda values: values)
        for name, function in functions.items():
            np.testing.assert_array_equal(on_it[name], function(TEXTS), err_msg=name)
