"""Small random models of every family in the table of architectures, and what their parts do, written down by hand.

Shapes: B sequences, T tokens, U neurons, D dimensions of the residual stream.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers as hf
from torch import nn
from torch.nn.functional import gelu, linear, relu, silu

from pipeline.subjects.activation_sources import ModelActivations, find_hook_points
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.loading.model_loading import model_class

VOCABULARY = 50
HIDDEN = 16
HEADS = 4
EVEN = {
    "hidden_size": HIDDEN, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "vocab_size": VOCABULARY, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
GROUPED = EVEN | {"num_key_value_heads": 2}
WIDE_HEADS = GROUPED | {"head_dim": 8}
OLD = {
    "n_embd": HIDDEN, "n_layer": 2, "n_head": HEADS, "vocab_size": VOCABULARY, "n_positions": 32, "bos_token_id": 0,
    "eos_token_id": 1,
}  # fmt: skip
TANH: Callable[[torch.Tensor], torch.Tensor] = lambda x: gelu(x, approximate="tanh")  # noqa: E731
Function = Callable[[torch.Tensor], torch.Tensor]


def plain(up: str, act: Function, *, transposed: bool = False) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """act(x W + b)"""

    def by_hand(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        weights = dict(block.named_parameters())
        matrix = weights[f"{up}.weight"]
        return act(linear(x, matrix.T if transposed else matrix, weights.get(f"{up}.bias")))

    return by_hand


def gated(gate: str, up: str, act: Function) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """act(x G) * (x U)"""

    def by_hand(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        weights = dict(block.named_parameters())
        return act(linear(x, weights[f"{gate}.weight"])) * linear(x, weights[f"{up}.weight"])

    return by_hand


def halves(both: str, act: Function) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """act(x G) * (x U), where G and U are the halves of one matrix"""

    def by_hand(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        gate, up = linear(x, dict(block.named_parameters())[f"{both}.weight"]).chunk(2, dim=-1)
        return act(gate) * up

    return by_hand


GATE = ("mlp.gate_proj", "mlp.up_proj")


@dataclass(frozen=True)
class Family:
    """A family of models."""

    config: Callable[[], Any]
    by_hand: Callable[[nn.Module, torch.Tensor], torch.Tensor]
    """From a layer and what its MLP reads to its neurons."""
    layers: str
    mlp: str
    """The module that reads what the MLP reads."""
    o_proj: str
    norm: str = "rms"
    """In front of the MLP: rms, layer, or none where it reads the residual stream as it is."""
    parallel: bool = False
    """Whether the MLP reads what attention reads."""
    sums_normalised: bool = False
    """Whether the residual stream is normalised after each sum (BERT)."""
    writes_normalised: bool = False
    """Whether there is a norm on what is written."""
    signed: bool = True


LLAMA: dict[str, Any] = {"by_hand": gated(*GATE, silu), "layers": "layers", "mlp": "mlp", "o_proj": "self_attn.o_proj"}
GEMMA = LLAMA | {"by_hand": gated(*GATE, TANH)}
GPT2: dict[str, Any] = {"layers": "h", "mlp": "mlp", "norm": "layer"}
NEOX: dict[str, Any] = {"by_hand": plain("mlp.dense_h_to_4h", gelu), "layers": "layers", "mlp": "mlp", "norm": "layer"}
BERT: dict[str, Any] = {
    "by_hand": plain("intermediate.dense", gelu), "layers": "encoder.layer", "mlp": "intermediate",
    "o_proj": "attention.output.dense", "norm": "none", "sums_normalised": True,
}  # fmt: skip

FAMILIES: dict[str, Family] = {
    "gpt2": Family(
        lambda: hf.GPT2Config(**OLD), plain("mlp.c_fc", TANH, transposed=True), o_proj="attn.c_proj", **GPT2
    ),
    "gpt_neo": Family(
        lambda: hf.GPTNeoConfig(
            hidden_size=HIDDEN, num_layers=2, num_heads=HEADS, vocab_size=VOCABULARY, attention_types=[[["global"], 2]],
            bos_token_id=0, eos_token_id=1,
        ), plain("mlp.c_fc", TANH), o_proj="attn.attention.out_proj", **GPT2,
    ),
    "gptj": Family(
        lambda: hf.GPTJConfig(**OLD, rotary_dim=4), plain("mlp.fc_in", TANH), o_proj="attn.out_proj", parallel=True, **GPT2
    ),
    "gpt_neox": Family(lambda: hf.GPTNeoXConfig(**EVEN), o_proj="attention.dense", parallel=True, **NEOX),
    "gpt_neox in turn": Family(
        lambda: hf.GPTNeoXConfig(**EVEN, use_parallel_residual=False), o_proj="attention.dense", **NEOX
    ),
    "bloom": Family(
        lambda: hf.BloomConfig(hidden_size=HIDDEN, n_layer=2, n_head=HEADS, vocab_size=VOCABULARY),
        **(NEOX | {"by_hand": plain("mlp.dense_h_to_4h", TANH), "layers": "h"}), o_proj="self_attention.dense",
    ),
    "falcon": Family(
        lambda: hf.FalconConfig(
            hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS, vocab_size=VOCABULARY, bos_token_id=0,
            eos_token_id=1,
        ), o_proj="self_attention.dense", parallel=True, **(NEOX | {"layers": "h"}),
    ),
    "falcon with alibi": Family(
        lambda: hf.FalconConfig(
            hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS, vocab_size=VOCABULARY, bos_token_id=0,
            eos_token_id=1, alibi=True, parallel_attn=False,
        ), o_proj="self_attention.dense", **(NEOX | {"layers": "h"}),
    ),
    "falcon of 40B": Family(
        lambda: hf.FalconConfig(
            hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS, vocab_size=VOCABULARY, bos_token_id=0,
            eos_token_id=1, new_decoder_architecture=True, num_kv_heads=2,
        ), o_proj="self_attention.dense", parallel=True, **(NEOX | {"layers": "h"}),
    ),
    "mpt": Family(
        lambda: hf.MptConfig(d_model=HIDDEN, n_layers=2, n_heads=HEADS, vocab_size=VOCABULARY),
        plain("ffn.up_proj", gelu), "blocks", "ffn", "attn.out_proj", "layer",
    ),
    "llama": Family(lambda: hf.LlamaConfig(**GROUPED), **LLAMA),
    "mistral": Family(lambda: hf.MistralConfig(**GROUPED), **LLAMA),
    "qwen2": Family(lambda: hf.Qwen2Config(**GROUPED), **LLAMA),
    "qwen3": Family(lambda: hf.Qwen3Config(**WIDE_HEADS), **LLAMA),
    "olmo2": Family(lambda: hf.Olmo2Config(**GROUPED), norm="none", writes_normalised=True, **LLAMA),
    "gemma": Family(lambda: hf.GemmaConfig(**WIDE_HEADS), **GEMMA),
    "gemma2": Family(lambda: hf.Gemma2Config(**WIDE_HEADS), writes_normalised=True, **GEMMA),
    "gemma3": Family(lambda: hf.Gemma3TextConfig(**WIDE_HEADS), writes_normalised=True, **GEMMA),
    "glm4": Family(
        lambda: hf.Glm4Config(**WIDE_HEADS), halves("mlp.gate_up_proj", silu), "layers", "mlp", "self_attn.o_proj",
        writes_normalised=True,
    ),
    "nemotron": Family(
        lambda: hf.NemotronConfig(**GROUPED),
        plain("mlp.up_proj", lambda x: relu(x) ** 2), "layers", "mlp", "self_attn.o_proj", "layer", signed=False,
    ),
    "starcoder2": Family(
        lambda: hf.Starcoder2Config(**GROUPED), plain("mlp.c_fc", TANH), "layers", "mlp", "self_attn.o_proj", "layer"
    ),
    "phi": Family(
        lambda: hf.PhiConfig(**EVEN), plain("mlp.fc1", TANH), "layers", "mlp", "self_attn.dense", "layer", parallel=True
    ),
    "phi3": Family(
        lambda: hf.Phi3Config(**GROUPED), halves("mlp.gate_up_proj", silu), "layers", "mlp", "self_attn.o_proj"
    ),
    "opt": Family(
        lambda: hf.OPTConfig(
            hidden_size=HIDDEN, ffn_dim=24, num_hidden_layers=2, num_attention_heads=HEADS, vocab_size=VOCABULARY,
            word_embed_proj_dim=HIDDEN, max_position_embeddings=32, bos_token_id=0, eos_token_id=1, pad_token_id=0,
        ), plain("fc1", relu), "decoder.layers", "fc1", "self_attn.out_proj", "layer", signed=False,
    ),
    "bert": Family(lambda: hf.BertConfig(**EVEN), **BERT),
    "roberta": Family(lambda: hf.RobertaConfig(**EVEN | {"pad_token_id": 1}), **BERT),
    "electra": Family(lambda: hf.ElectraConfig(**EVEN, embedding_size=HIDDEN), **BERT),
    "distilbert": Family(
        lambda: hf.DistilBertConfig(
            dim=HIDDEN, hidden_dim=24, n_layers=2, n_heads=HEADS, vocab_size=VOCABULARY, max_position_embeddings=32
        ), plain("ffn.lin1", gelu), "transformer.layer", "ffn", "attention.out_lin", "none", sums_normalised=True,
    ),
    "modernbert": Family(
        lambda: hf.ModernBertConfig(**EVEN, cls_token_id=0, sep_token_id=1), halves("mlp.Wi", gelu), "layers", "mlp", "attn.Wo",
        "layer",
    ),
}  # fmt: skip


def random_model(config: Any) -> Any:
    """A model in eval mode whose parameters, those of norms and biases too, are all drawn at random."""
    torch.manual_seed(0)
    model = model_class(config).from_config(config).eval().requires_grad_(False)
    for weight in model.parameters():
        weight.copy_(0.4 * torch.randn(weight.shape) + (weight if weight.ndim == 1 else 0))
    return model


def layer(model: Any, family: Family, number: int) -> nn.Module:
    return model.base_model.get_submodule(f"{family.layers}.{number}")


def token_batch(lengths: Sequence[int], seed: int = 0) -> TokenBatch:
    """Random sequences, padded on the right with 0."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, VOCABULARY, (len(lengths), max(lengths)))
    ids[np.arange(max(lengths)) >= np.asarray(lengths)[:, None]] = 0
    return TokenBatch(ids, np.asarray(lengths), np.arange(len(lengths)))


def activations(model: Any, modules: Sequence[str], batch: TokenBatch, **options: Any) -> dict[str, torch.Tensor]:
    """(B, T, U) activations by module."""
    seen: dict[str, torch.Tensor] = {}
    source = ModelActivations(model.base_model, find_hook_points(model.base_model, modules, **options))
    source.run(batch, lambda module, found: seen.__setitem__(module, found.clone()))
    assert list(source.modules) == list(modules)
    assert {name: units.width for name, units in source.modules.items()} == {
        name: found.shape[2] for name, found in seen.items()
    }
    return seen


def seen_by(model: Any, family: Family, batch: TokenBatch, part: str, number: int = 1) -> torch.Tensor:
    """(B, T, ...) what a part of a layer is given."""
    seen: list[torch.Tensor] = []
    hook = (
        layer(model, family, number)
        .get_submodule(part)
        .register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    )
    model.base_model(torch.from_numpy(batch.token_ids))
    hook.remove()
    return seen[0].reshape(*batch.token_ids.shape, -1)
