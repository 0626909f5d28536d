"""Where transformer families keep their parts: one table of paths, which `subject.paths` of the run file extends.

A part is found by its path, tried in the order of the table, whatever the class of the model. Shapes: B sequences, T tokens, D
dimensions of the residual stream.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import nn

from pipeline.errors import UserError

Side = Literal["input", "output"]
Paths = Mapping[Any, str]
"""`subject.paths`: a path by part, which goes before those of the table."""

PATHS: dict[str, dict[str, str]] = {
    "layers": {  # in the base model
        "layers": "Llama, Mistral, Qwen, Gemma, OLMo, Phi, GPT-NeoX, ModernBERT",
        "h": "GPT-2, GPT-Neo, GPT-J, BLOOM, Falcon",
        "blocks": "MPT",
        "decoder.layers": "OPT",
        "encoder.layer": "BERT, RoBERTa, ELECTRA",
        "transformer.layer": "DistilBERT",
        "language_model.layers": "image and text",
        "model.layers": "code of a hub model",
        "text_model.layers": "image and text",
    },
    "down_proj": {  # this one and the others in a layer
        "mlp.down_proj": "Llama, Mistral, Qwen, Gemma, OLMo, Phi-3, StableLM",
        "mlp.c_proj": "GPT-2, GPT-Neo, StarCoder2",
        "mlp.dense_4h_to_h": "GPT-NeoX, Pythia, BLOOM, Falcon",
        "mlp.fc_out": "GPT-J, CodeGen",
        "mlp.fc2": "Phi",
        "mlp.Wo": "ModernBERT",
        "ffn.down_proj": "MPT",
        "ffn.lin2": "DistilBERT",
        "fc2": "OPT",
        "output.dense": "BERT, RoBERTa, ELECTRA",
    },
    "up_proj": {  # of a gated MLP, the projection to the gate
        "mlp.gate_proj": "Llama, Mistral, Qwen, Gemma, OLMo",
        "mlp.gate_up_proj": "Phi-3",
        "mlp.Wi": "ModernBERT",
        "mlp.up_proj": "Nemotron",
        "mlp.c_fc": "GPT-2, GPT-Neo, StarCoder2",
        "mlp.dense_h_to_4h": "GPT-NeoX, Pythia, BLOOM, Falcon",
        "mlp.fc_in": "GPT-J, CodeGen",
        "mlp.fc1": "Phi",
        "ffn.up_proj": "MPT",
        "ffn.lin1": "DistilBERT",
        "fc1": "OPT",
        "intermediate.dense": "BERT, RoBERTa, ELECTRA",
    },
    "mlp": {
        "mlp": "most",
        "ffn": "MPT, DistilBERT",
        "fc1": "OPT, which has no module for its MLP: the first part of it",
        "intermediate": "BERT, RoBERTa, ELECTRA: the first part of it",
    },
    "activation": {
        "mlp.act_fn": "Llama, Mistral, Qwen, Gemma, OLMo",
        "mlp.activation_fn": "Phi, Phi-3",
        "mlp.act": "GPT-2, GPT-Neo, GPT-NeoX, GPT-J, StarCoder2, Falcon, ModernBERT",
        "mlp.gelu_impl": "BLOOM",
        "ffn.act": "MPT",
        "ffn.activation": "DistilBERT",
        "activation_fn": "OPT",
        "intermediate.intermediate_act_fn": "BERT, RoBERTa, ELECTRA",
    },
    "o_proj": {
        "self_attn.o_proj": "Llama, Mistral, Qwen, Gemma, OLMo, Phi-3",
        "self_attn.out_proj": "OPT",
        "self_attn.dense": "Phi",
        "attn.c_proj": "GPT-2",
        "attn.attention.out_proj": "GPT-Neo",
        "attn.out_proj": "GPT-J, CodeGen, MPT",
        "attn.Wo": "ModernBERT",
        "attention.dense": "GPT-NeoX, Pythia",
        "attention.output.dense": "BERT, RoBERTa, ELECTRA",
        "attention.out_lin": "DistilBERT",
        "self_attention.dense": "BLOOM, Falcon",
    },
    "mlp_norm": {  # in front of the MLP
        "pre_feedforward_layernorm": "Gemma 2, Gemma 3",
        "ln_mlp": "Falcon, in parallel to attention",
        "ln_2": "GPT-2, GPT-Neo",
        "norm_2": "MPT",
        "mlp_norm": "ModernBERT",
        "final_layer_norm": "OPT",
        "post_attention_layernorm": "Llama, Mistral, Qwen, Gemma, Phi-3, GPT-NeoX, Pythia, BLOOM, StarCoder2",
        "input_layernorm": "Phi, Falcon, Cohere, in parallel to attention",
        "ln_1": "GPT-J, CodeGen, in parallel to attention",
    },
    "mlp_post_norm": {  # on what the MLP writes, before it is added
        "post_feedforward_layernorm": "Gemma 2, Gemma 3, OLMo 2",
        "post_mlp_layernorm": "GLM-4",
    },
    "attn_post_norm": {
        "post_self_attn_layernorm": "GLM-4",
        "post_attention_layernorm": "Gemma 2, Gemma 3, OLMo 2, where post_feedforward_layernorm is too",
    },
}
"""Where each part is, and in which families."""


def stack(base_model: nn.Module, paths: Paths | None = None) -> list[nn.Module]:
    """The layers of a model without its head. Raises UserError: there is no list of layers where one was looked for."""
    given = (paths or {}).get("layers")
    for path in [given] if given else PATHS["layers"]:
        found = descend(base_model, path)
        if isinstance(found, nn.ModuleList):
            return list(found)
    raise UserError(
        f"the layers of a {type(base_model).__name__} were not found ({_looked('layers', paths or {})}); "
        "give the path of the list of layers as "
        f'subject.paths = {{ layers = "..." }}; its parts are {_children(base_model)}'
    )


@dataclass(frozen=True)
class Layer:
    """A layer of a model, in which a module of the run file has its units."""

    module: str
    """The module's name in the run file, for messages."""
    number: int
    block: nn.Module
    config: Any
    """The configuration of the model."""
    paths: Paths = field(default_factory=dict)

    def part(self, name: str) -> nn.Module | None:
        """A part of the layer, such as `down_proj`; None where there is none."""
        if given := self.paths.get(name):
            return descend(self.block, given)
        if name == "mlp_norm" and not getattr(self.block, "do_layer_norm_before", True):
            return None  # OPT-350m normalises sums
        post_norms = descend(self.block, "post_feedforward_layernorm") is not None
        for path in PATHS[name]:
            if path == "post_attention_layernorm" and post_norms != (name == "attn_post_norm"):
                continue  # in Gemma 2 it belongs to what attention writes, elsewhere to what the MLP reads
            found = descend(self.block, path)
            if found is not None:
                return found
        return None

    def needed(self, name: str) -> nn.Module:
        """A part that the module cannot do without. Raises UserError: the layer does not have it, at least not where it was looked for."""
        found = self.part(name)
        if found is not None:
            return found
        raise UserError(
            f"subject.modules: {self.module!r} needs the {name} of a {type(self.block).__name__}, which was not found "
            f"({_looked(name, self.paths)}); choose another module, or give its path as "
            f'subject.paths = {{ {name} = "..." }}; the layer consists of {_children(self.block)}'
        )

    def place(self, reads: str) -> tuple[nn.Module, Side]:
        """Where a tensor (B, T, dimensions) of the layer is found: a torch module, and whether it is its input or its output.

        Args:
            reads: residual (the layer's output), residual_in (its input), attn_out and mlp_out (what attention and the MLP
                add to the residual stream: after the norm that Gemma 2 and 3 put behind them), mlp_in (what the MLP reads,
                after the norm in front of it), or mlp (its neurons).

        Raises:
            UserError: the layer lacks the part.
        """
        match reads:
            case "residual":
                return self.block, "output"
            case "residual_in":
                return self.block, "input"
            case "attn_out":
                return self.part("attn_post_norm") or self.needed("o_proj"), "output"
            case "mlp_out":
                return self.part("mlp_post_norm") or self.part("down_proj") or self.needed("mlp"), "output"
        return self.needed({"mlp": "down_proj", "mlp_in": "mlp"}[reads]), "input"

    def width(self, reads: str) -> int:
        """Dimensions of the tensor at a place. Raises UserError: the layer lacks the part, or the configuration the width."""
        if reads == "mlp":
            return inputs(self.needed("down_proj"))
        width = getattr(self.config.get_text_config(), "hidden_size", None)
        if not isinstance(width, int):
            raise UserError(
                f"subject.modules: {self.module!r}: the model's configuration has no hidden_size, which is needed"
            )
        return width

    def norm_before(self, reads: str) -> nn.Module | None:
        """The norm whose output is read at a place: that in front of the MLP for mlp_in, None for all others."""
        return self.part("mlp_norm") if reads == "mlp_in" else None


def descend(module: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path."""
    found: object = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None


def _looked(name: str, paths: Paths) -> str:
    return f"subject.paths says {paths[name]!r}" if paths.get(name) else f"looked for {', '.join(PATHS[name])}"


def _children(module: nn.Module) -> str:
    names = [name for name, _ in module.named_modules() if name and name.count(".") < 2]
    return ", ".join(names[:24]) or "nothing"


def inputs(projection: nn.Module) -> int:
    """Number of inputs of a torch Linear, or of GPT-2's Conv1D, which stores its weight transposed."""
    if isinstance(projection, nn.Linear):
        return projection.in_features
    return int(cast(torch.Tensor, projection.weight).shape[0])


def parameter(module: nn.Module, name: str = "weight") -> torch.Tensor:
    """A parameter where it is, or copied to the CPU where accelerate keeps it elsewhere until it is used."""
    found = cast(torch.Tensor, getattr(module, name))
    if found.device.type != "meta":
        return found.detach()
    from accelerate.utils import align_module_device

    with align_module_device(module):
        return cast(torch.Tensor, getattr(module, name)).detach().cpu().clone()


def matrix(projection: nn.Module) -> torch.Tensor:
    """The (outputs, inputs) float32 weight of a Linear or a Conv1D on the CPU, wherever accelerate keeps it."""
    weight = parameter(projection).float().cpu()
    return weight if isinstance(projection, nn.Linear) else weight.T


def norm_scale(norm: nn.Module | None, width: int) -> torch.Tensor:
    """(D,) what a LayerNorm or RMSNorm multiplies a normalised vector by; ones where there is no norm.

    It is found by applying the norm to a vector of mean 0 that is normalised already, up to a factor: some families store the
    weight less one.
    """
    if norm is None or not list(norm.parameters()):
        return torch.ones(width)
    if type(norm) is nn.LayerNorm:
        return parameter(norm).float().cpu()
    from accelerate.utils import align_module_device

    with align_module_device(norm), torch.inference_mode():
        weight = next(norm.parameters())
        signs = 1.0 - 2.0 * (torch.arange(width, device=weight.device) % 2)
        probe = (100.0 * signs).to(weight.dtype)
        return ((norm(probe) - norm(-probe)).float() / 2 * signs).cpu().clone()
