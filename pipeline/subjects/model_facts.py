"""What a model is like, from its configuration alone: no weights are read or downloaded."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.config import Subject
from pipeline.subjects.activations import ModuleUnits
from pipeline.subjects.hook_points import find_hook_points, mlp_modules
from pipeline.subjects.loading.hub import quiet_transformers
from pipeline.subjects.loading.model_loading import model_class, told_to_the_user
from pipeline.subjects.loading.model_source import ModelSource, configuration_folder, resolve_model

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
OFFSET = {
    "camembert",
    "data2vec-text",
    "longformer",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Model types that count positions from behind the padding token's id."""
UNBOUNDED = {"bloom", "mamba", "mamba2", "falcon_mamba", "rwkv", "xlnet"}
"""Model types whose positions have no end, whatever their configuration says."""


@dataclass(frozen=True)
class ModelFacts:
    """The size and shape of a model."""

    source: ModelSource
    model_type: str
    causal: bool
    """Whether it predicts the next token; an encoder does not."""
    layers: int
    hidden_size: int
    vocab_size: int
    context_length: int | None
    """Tokens a sequence may have; None where there is no end."""
    parameters: int
    widths: dict[str, int]
    """Neurons of every MLP, `layers.0.mlp` first."""

    @property
    def modules(self) -> list[str]:
        return list(self.widths)


def describe_model(spec: str, trust_remote_code: bool = False) -> ModelFacts:
    """The facts of a model, from its configuration and a copy of it without weights.

    Takes about a second, and some seconds for a GGUF file that has not been converted yet.

    Raises:
        UserError: no such model, or its configuration cannot be read.
    """
    source, config, model = _skeleton(spec, trust_remote_code)
    text = config.get_text_config()
    mlps = find_hook_points(model.base_model, mlp_modules(model.base_model))
    return ModelFacts(
        source=source,
        model_type=str(config.model_type),
        causal=model_class(config) is AutoModelForCausalLM,
        layers=int(text.num_hidden_layers),
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        context_length=context_length(config),
        parameters=sum(weight.numel() for weight in model.parameters()),
        widths={name: point.width for name, point in mlps.items()},
    )


def check_modules(
    spec: str, modules: Sequence[str], trust_remote_code: bool = False, subject: Subject | None = None
) -> dict[str, ModuleUnits]:
    """The units of each module of a model that a run file names, found without the model's weights.

    Args:
        subject: what the run file says of the subject: paths of its parts, sparse coders and directions.

    Raises:
        UserError: the model has no such module, or one is named twice.
    """
    _, _, model = _skeleton(spec, trust_remote_code)
    return {name: point.units for name, point in find_hook_points(model.base_model, modules, subject).items()}


@functools.cache
def _skeleton(spec: str, trust_remote_code: bool) -> tuple[ModelSource, Any, Any]:
    """Source, configuration, and the model on torch's meta device: shapes without memory."""
    source = resolve_model(spec)
    with quiet_transformers(), told_to_the_user(source):
        config = _read_config(source, trust_remote_code)
        with torch.device("meta"):
            return source, config, model_class(config).from_config(config, trust_remote_code=trust_remote_code)


def context_length(config: Any) -> int | None:
    """Tokens that a sequence may have by a transformers configuration; None where there is no end."""
    text = config.get_text_config()
    if text.model_type in UNBOUNDED:
        return None
    lengths = (getattr(text, key, None) for key in CONTEXT_KEYS)
    found = next((length for length in lengths if isinstance(length, int) and length > 0), None)
    return found - int(text.pad_token_id) - 1 if found and text.model_type in OFFSET else found


def _read_config(source: ModelSource, trust_remote_code: bool) -> Any:
    folder = configuration_folder(source)
    if folder is not None:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    file = Path(source.location)
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    if hasattr(config, "quantization_config"):
        delattr(config, "quantization_config")
    return config
