"""Black boxes that run a model: hidden states, dictionaries in them, words after prompts, and classes."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from pipeline.black_boxes.class_logit import class_logit
from pipeline.black_boxes.dictionary import dictionary, sparse_codes
from pipeline.black_boxes.next_word import next_word
from pipeline.black_boxes.ridge import ridge
from pipeline.errors import UserError
from pipeline.subjects.embedder import load_embedder
from pipeline.subjects.loading.model_loading import load_language_model
from tests.pipeline.subjects.conftest import save_tiny_llama

TEXTS = ["The quick brown fox", "dog", "Café au lait costs 12 euros", "", "jumps over the lazy"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_llama(tmp_path_factory.mktemp("boxes") / "llama"))


def states_of(model: str, text: str, layer: int) -> torch.Tensor:
    """(T, D) of the tokens of a text, behind the model's first token."""
    loaded = load_language_model(model)
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        out = loaded.model.base_model(torch.tensor([[0, *ids]]), output_hidden_states=True)
    states: torch.Tensor = out.hidden_states[layer + 1][0, 1:].double()
    return states


def test_voxels_on_the_mean_hidden_state(llama: str, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    np.save(tmp_path / "w.npy", weights)
    found = ridge(str(tmp_path / "w.npy"), features="hidden", model=llama, layer=0)(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        if not text:
            assert np.isnan(row).all()
            continue
        np.testing.assert_allclose(row, weights @ states_of(llama, text, 0).mean(dim=0).numpy(), rtol=1e-4, atol=1e-5)


def brute(state: torch.Tensor, atoms: torch.Tensor, penalty: float, positive: bool) -> torch.Tensor:
    """The minimum over all supports and signs, each of which is a linear system."""
    units = len(atoms)
    best, least = torch.zeros(units, dtype=torch.float64), 0.5 * float(state @ state)
    for signs in itertools.product((0.0, 1.0) if positive else (0.0, 1.0, -1.0), repeat=units):
        sign = torch.tensor(signs, dtype=torch.float64)
        used = sign != 0
        if not used.any() or int(used.sum()) > len(state):
            continue
        own = atoms[used]
        code = torch.linalg.solve(own @ own.T, own @ state - penalty * sign[used])
        if (code * sign[used] < 0).any():
            continue
        cost = 0.5 * float(((state - code @ own) ** 2).sum()) + penalty * float(code.abs().sum())
        if cost < least:
            least, best = cost, torch.zeros(units, dtype=torch.float64).masked_scatter(used, code)
    return best


@pytest.mark.parametrize("positive", [True, False])
def test_sparse_codes_are_the_minimum(positive: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    atoms = torch.nn.functional.normalize(torch.randn(5, 6, generator=generator, dtype=torch.float64), dim=1)
    found = sparse_codes(states, atoms, 0.3, positive, 2000)
    wanted = torch.stack([brute(state, atoms, 0.3, positive) for state in states])
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
    assert (found == 0).any()
    assert positive == bool((found >= 0).all())


def test_factors_of_a_text_are_those_of_its_strongest_token(llama: str, tmp_path: Path) -> None:
    atoms = np.random.default_rng(1).normal(size=(6, 16))
    np.save(tmp_path / "a.npy", atoms)
    found = dictionary(str(tmp_path / "a.npy"), llama, 0, penalty=0.01)(TEXTS)
    normal = torch.from_numpy(atoms.astype(np.float32).astype(np.float64))
    normal = normal / normal.norm(dim=1, keepdim=True)
    for text, row in zip(TEXTS, found, strict=True):
        if text:
            codes = torch.stack([brute(state, normal, 0.01, True) for state in states_of(llama, text, 0)])
            np.testing.assert_allclose(row, codes.amax(dim=0), rtol=1e-3, atol=1e-5)
            assert codes.any()


def test_the_logit_of_a_word_after_a_prompt(llama: str) -> None:
    loaded = load_language_model(llama)
    found = next_word(["a", "x"], llama, prompt="Say: {text} is", against=["b", "c"])(TEXTS)
    a, x, b, c = (loaded.tokenizer(word)["input_ids"][0] for word in "axbc")
    for text, row in zip(TEXTS, found, strict=True):
        ids = loaded.tokenizer(f"Say: {text} is")["input_ids"]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ids])).logits[0, -1].double()
        middle = (logits[b] + logits[c]) / 2
        np.testing.assert_allclose(row, [logits[a] - middle, logits[x] - middle], rtol=1e-4, atol=1e-6)


def test_a_text_that_is_too_long_leaves_the_end_of_the_prompt_in_place(llama: str) -> None:
    function = next_word("a", llama, prompt="{text} so x")
    other = next_word("a", llama, prompt="{text} so y")
    assert np.isfinite(function(["z" * 500])).all()
    assert function(["z" * 500]) != other(["z" * 500])
    assert function(["z" * 500]) == function(["z" * 600])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"words": "a", "prompt": "no place"}, r"expected \{text\} in it once"),
        ({"words": "Cafés au"}, r"is \d+ tokens of .*expected one token"),
        ({"words": []}, "expected words"),
        ({"words": "a", "prompt": "{text}" + "z" * 60}, "leaves no room"),
    ],
)
def test_prompts_and_words_that_cannot_be_asked_are_told(llama: str, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        next_word(model=llama, **arguments)


def save_classifier(folder: Path, kind: str) -> Any:
    """A small random classifier of three classes."""
    torch.manual_seed(0)
    names = {0: "sport", 1: "politics", 2: "weather"}
    if kind == "encoder":
        load_embedder().tokenizer.save_pretrained(folder)
        config: Any = hf.BertConfig(
            vocab_size=30522, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, id2label=names
        )  # fmt: skip
        model: Any = hf.BertForSequenceClassification(config)
    else:
        save_tiny_llama(folder)
        config = hf.LlamaConfig(
            hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=320, id2label=names
        )  # fmt: skip
        model = hf.LlamaForSequenceClassification(config)
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_the_logits_of_a_classifier(tmp_path: Path, kind: str) -> None:
    model = save_classifier(tmp_path, kind)
    found = class_logit(str(tmp_path))(TEXTS)
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path)
    for text, row in zip(TEXTS, found, strict=True):
        if text:
            with torch.no_grad():
                wanted = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0]
            np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-6)
    chosen = class_logit(str(tmp_path), ["weather", 0])(TEXTS)
    np.testing.assert_array_equal(chosen, found[:, [2, 0]])
    with pytest.raises(UserError, match="has no class 'wether'; did you mean 'weather'"):
        class_logit(str(tmp_path), "wether")


def test_a_model_without_a_trained_classifier_is_refused(llama: str) -> None:
    with pytest.raises(UserError, match="saved as LlamaForCausalLM and has no trained classifier"):
        class_logit(llama)


def test_hidden_states_need_a_layer_that_is_there(llama: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 16)))
    with pytest.raises(UserError, match=r"layers\.7"):
        dictionary(str(tmp_path / "a.npy"), llama, 7)
    with pytest.raises(UserError, match="penalty = -1"):
        dictionary(str(tmp_path / "a.npy"), llama, 0, penalty=-1)
