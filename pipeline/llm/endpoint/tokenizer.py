"""The tokenizer of a model that runs elsewhere."""

from pathlib import Path
from typing import Any

from pipeline.errors import UserError


def find_tokenizer(model: str, tokenizer: str | None, trust_remote_code: bool = False) -> Any:
    """The tokenizer that is set; else that of the model's name if the hub's cache holds it, without any download; else None.

    Args:
        model: the name that the endpoint knows the model by; many servers take the hub's.
        tokenizer: hub id, package:NAME, or a folder, which needs no weights.

    Raises:
        UserError: the one that is set cannot be loaded.
    """
    if tokenizer is None:
        folder = _cached(model)
        return None if folder is None else _of_folder(folder, trust_remote_code)
    if (Path(tokenizer).expanduser() / "tokenizer.json").is_file():
        found = _of_folder(Path(tokenizer).expanduser(), trust_remote_code)
        if found is None:
            raise UserError(f"tokenizer = {tokenizer!r}: the folder holds no tokenizer that transformers can load")
        return found
    from pipeline.subjects.loading.model_loading import load_tokenizer

    return load_tokenizer(tokenizer, trust_remote_code)


def _cached(model: str) -> Path | None:
    """The folder of the hub's cache with a model's tokenizer."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "tokenizer.json") if "/" in model else None
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _of_folder(folder: Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    from pipeline.subjects.loading.hub import quiet_transformers

    with quiet_transformers():
        try:
            found = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError):
            return None
    return found if found.is_fast else None
