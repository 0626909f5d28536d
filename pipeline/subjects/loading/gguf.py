"""Models in GGUF files as safetensors, which load some forty times faster."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

RECIPE = 2
"""Raise it whenever the conversion changes, so that older copies are not used."""
SPLITS_DIGITS = {"smollm"}
"""Names of pre-tokenizers (`tokenizer.ggml.pre`) that cut numbers into digits first, which transformers does not know."""


def gguf_layers(file: Path) -> int:
    """Layers of the model in a GGUF file, by its header."""
    with _told_to_the_user(file):
        from gguf import GGUFReader

        fields = GGUFReader(file).fields
        return next(int(field.contents()) for name, field in fields.items() if name.endswith(".block_count"))


def convert_gguf(file: Path, folder: Path) -> None:
    """Write a safetensors copy of a GGUF file (some 20 s for 100 MB), in float32, which holds every quantised value.

    Raises:
        UserError: the file is broken or of an unknown architecture, or a package is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with _told_to_the_user(file):
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = _tokenizer(file)
    if hasattr(model.config, "quantization_config"):
        delattr(model.config, "quantization_config")
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer(file: Path) -> Any:
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    if field is not None and field.contents() in SPLITS_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    return tokenizer


@contextmanager
def _told_to_the_user(file: Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(f"{file} is a GGUF file, and reading it needs `pip install gguf`: {error}") from error
    except (ValueError, KeyError, IndexError, NotImplementedError, RuntimeError, OSError, struct.error) as error:
        raise UserError(
            f"{file} cannot be read as a language model ({type(error).__name__}: {error}); the file may be cut off, or of "
            "an architecture that transformers does not read from GGUF: give a folder with safetensors"
        ) from error
