"""Load a language model, a causal one or an encoder, or its tokenizer, or only what its configuration tells."""

import functools
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pipeline.config import Subject
from pipeline.errors import UserError
from pipeline.subjects.loading.gguf import convert_gguf
from pipeline.subjects.loading.hub import fetch_model
from pipeline.subjects.loading.model_source import (
    ModelSource,
    configuration_folder,
    folder_made_once,
    resolve_model,
    safetensors_copy,
)
from pipeline.subjects.loading.untrained import initialised, shuffle

LOG = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab*", "*.tiktoken", "tekken.json", "tokenization_*.py")
"""Of these transformers makes a tokenizer; where there are none, it makes one without any text in it."""
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
OFFSET = [
    "camembert",
    "data2vec-text",
    "longformer",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
]
"""Model types that count positions from behind the padding token's id."""
UNBOUNDED = {"bloom", "mamba", "mamba2", "falcon_mamba", "rwkv", "xlnet"}
"""Model types whose positions have no end, whatever their configuration says."""


@dataclass(frozen=True)
class LoadedModel:
    """A language model, ready for inference."""

    model: Any
    """A transformers model as `model_class` says, in eval mode, its parameters without gradients."""
    tokenizer: Any
    """Its fast tokenizer."""
    device: torch.device
    """Of the embeddings, where the model is spread over several."""
    name: str
    """The model as the run file names it."""
    revision: str
    """The hub's commit or a hash of the content."""


def load_language_model(
    model: str,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    device_map: bool = False,
    weights: str = "trained",
    weights_seed: int = 0,
) -> LoadedModel:
    """The model that a run file names; the same arguments give the same object within a process.

    Args:
        model: a hub id with an optional @revision, a local folder, a GGUF file, or package:NAME.
        dtype: of the weights; "auto" is float32 on a CPU and the checkpoint's own type elsewhere.
        device: "auto" is CUDA where there is one, else the CPU.
        trust_remote_code: run the Python code that comes with a model.
        device_map: let accelerate spread the weights over all devices, and over memory and disk where those do not suffice.
        weights: "trained", "random" or "shuffled", the last two drawn by `weights_seed`; see untrained.py.

    Raises:
        UserError: no such model, device or permission, no safetensors, or no fast tokenizer.
    """
    return _load(model, dtype, device, trust_remote_code, device_map, weights, weights_seed)


def load_subject(subject: Subject) -> LoadedModel:
    """The subject of a run file; see load_language_model."""
    how = (subject.dtype, subject.device, subject.trust_remote_code, subject.device_map)
    return load_language_model(subject.model, *how, subject.weights, subject.weights_seed)


@functools.cache
def _load(
    model: str, dtype: str, device: str, trust_remote_code: bool, device_map: bool, weights: str, seed: int
) -> LoadedModel:
    place = resolve_device(device)
    if device_map and device != "auto":
        raise UserError(
            f'device_map = true spreads a model over all devices, but device = {device!r}; write device = "auto"'
        )
    if dtype not in {"auto", *DTYPES}:
        raise UserError(f"dtype = {dtype!r}; allowed: auto, {', '.join(DTYPES)}")
    kind = DTYPES.get(dtype) or (torch.float32 if place.type == "cpu" else "auto")
    source = resolve_model(model)
    folder = model_folder(source, weights=weights != "random")
    tokenizer = load_tokenizer(model, trust_remote_code)
    with quiet_transformers(), told_to_the_user(source):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if weights == "random":
            own = next(one for one in (kind, config.dtype, torch.float32) if isinstance(one, torch.dtype))
            made = initialised(model_class(config), config, own, seed, trust_remote_code)
        else:
            made = model_class(config).from_pretrained(
                folder,
                config=config,
                dtype=kind,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                device_map="auto" if device_map else None,
            )
    made.eval().requires_grad_(False)
    if weights == "shuffled":
        shuffle(made, seed)
    if device_map:
        return LoadedModel(made, tokenizer, made.get_input_embeddings().weight.device, model, source.revision)
    return LoadedModel(made.to(place), tokenizer, place, model, source.revision)


def model_class(config: Any) -> Any:
    """What loads a model with the head that predicts its tokens: causal, or masked where it is an encoder.

    An encoder that was saved without that head is loaded without one, as a head of random weights would say nothing.
    """
    known = AutoModelForMaskedLM._model_mapping
    either = type(config) in AutoModelForCausalLM._model_mapping
    if type(config) not in known or config.is_encoder_decoder or (either and getattr(config, "is_decoder", True)):
        return AutoModelForCausalLM
    saved = config.architectures or ["ForMaskedLM"]
    return AutoModelForMaskedLM if saved[0].endswith(("ForMaskedLM", "ForPreTraining")) else AutoModel


@functools.cache
def load_tokenizer(model: str, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of a model, without its weights. Raises UserError: no such model, or it has no fast tokenizer."""
    source = resolve_model(model)
    folder = model_folder(source, weights=False)
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise UserError(
            f"model = {model!r}: {folder} holds no tokenizer (looked for {', '.join(TOKENIZER_FILES)}); "
            "save the one that the model was trained with there, with tokenizer.save_pretrained"
        )
    with quiet_transformers(), told_to_the_user(source):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise UserError(
            f"model = {model!r} has no fast tokenizer (tokenizer.json), which is needed; choose another or convert it"
        )
    return tokenizer


def resolve_device(device: str) -> torch.device:
    """The device that a run file means. Raises UserError: this machine has no such device."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UserError(f"device = {device!r}; allowed: auto, cpu, cuda, cuda:N, mps") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place.type == "cuda" and (place.index or 0) >= count:
        have = f"has {count} CUDA devices" if count else "has no CUDA device that this torch can use"
        raise UserError(f'device = {device!r}, but this machine {have}; write device = "auto" or "cpu"')
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise UserError('device = \'mps\', but this machine has none; write device = "auto" or "cpu"')
    return place


def model_folder(source: ModelSource, *, weights: bool = True, nested: bool = False) -> Path:
    """The folder with a model's files: downloads from the hub and converts a GGUF file where that is needed.

    Args:
        weights: download the safetensors too.
        nested: and what is in folders, as a model of sentence-transformers has it.
    """
    if source.kind == "hub":
        return fetch_model(source.location, source.revision, weights=weights, nested=nested)
    file = Path(source.location)
    if source.kind == "folder":
        return file

    def convert(folder: Path) -> None:
        LOG.info("converting %s once to safetensors in %s", file, folder.parent)
        with quiet_transformers():
            convert_gguf(file, folder)

    return folder_made_once(safetensors_copy(source), convert)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No warnings inside the block, and no progress bars and notes of transformers from now on; errors still raise."""
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def told_to_the_user(source: ModelSource) -> Iterator[None]:
    """Turn what transformers raises about a model's files into a UserError."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, struct.error, SafetensorError) as error:
        text = str(error).strip()
        if "trust_remote_code" in text:
            told = (
                "comes with Python code of its own; read that code, and if you trust it set trust_remote_code = true "
                "beside model in the run file"
            )
        elif "Unrecognized model" in text or "does not recognize this architecture" in text or "model type" in text:
            told = f"is of an architecture that transformers does not know as a language model: {text}"
        else:
            told = f"cannot be loaded ({type(error).__name__}: {text}); check its files, or download them again"
        raise UserError(f"model = {source.spec!r} {told}") from error


@dataclass(frozen=True)
class ModelFacts:
    """What the configuration of a model tells."""

    causal: bool
    """Whether it predicts the next token; an encoder does not."""
    vocab_size: int
    context_length: int | None
    """Tokens a sequence may have; None where there is no end."""


def describe_model(spec: str, trust_remote_code: bool = False) -> ModelFacts:
    """The facts of a model; no weights are read or downloaded. Raises UserError: no such model, or its configuration cannot be read."""
    config = skeleton(spec, trust_remote_code).config
    causal, vocab_size = model_class(config) is AutoModelForCausalLM, config.get_text_config().vocab_size
    return ModelFacts(causal, int(vocab_size), context_length(config))


@functools.cache
def skeleton(spec: str, trust_remote_code: bool = False) -> Any:
    """A model on torch's meta device: shapes without memory, made of its configuration alone.

    Takes about a second, and some seconds for a GGUF file that has not been converted yet.

    Raises:
        UserError: no such model, or its configuration cannot be read.
    """
    source = resolve_model(spec)
    with quiet_transformers(), told_to_the_user(source):
        folder, file = configuration_folder(source), Path(source.location)
        if folder is None:
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        else:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if folder is None and hasattr(config, "quantization_config"):
            delattr(config, "quantization_config")
        with torch.device("meta"):
            return model_class(config).from_config(config, trust_remote_code=trust_remote_code)


def context_length(config: Any) -> int | None:
    """Tokens that a sequence may have by a transformers configuration; None where there is no end."""
    text = config.get_text_config()
    if text.model_type in UNBOUNDED:
        return None
    lengths = (getattr(text, key, None) for key in CONTEXT_KEYS)
    found = next((length for length in lengths if isinstance(length, int) and length > 0), None)
    return found - int(text.pad_token_id) - 1 if found and text.model_type in OFFSET else found
