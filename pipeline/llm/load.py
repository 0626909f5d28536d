"""Language models from the run file: in this process, or behind an endpoint."""

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.llm.engine import Engine
from pipeline.storage.footers import canonical
from pipeline.subjects.loading.model_source import resolve_model

if TYPE_CHECKING:
    from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
    from pipeline.subjects.loading.model_loading import LoadedModel


def engine_settings(engine: LanguageModel | None) -> dict[str, Any] | None:
    """What identifies a language model; where it runs does not, so a server may move to another address."""
    if engine is None:
        return None
    if engine.base_url is None:
        return {"model": engine.model, "revision": resolve_model(engine.model).revision, "dtype": engine.dtype}
    body = hashlib.sha256(canonical(engine.body).encode()).hexdigest()[:16]  # it may hold secrets
    return {"model": engine.model, "body": body, "tokenizer": engine.tokenizer, "context": engine.context}


def check_engine(engine: LanguageModel | None) -> None:
    """Raises UserError where a model, its device, or the endpoint's key is not there; loads no weights, asks no server."""
    if engine is None:
        return
    if engine.base_url is not None:
        from pipeline.llm.endpoint.faults import Secrets

        Secrets.of(engine)
        return
    from pipeline.subjects.loading.model_loading import describe_model, resolve_device

    resolve_device(engine.device)
    if not describe_model(engine.model, engine.trust_remote_code).causal:
        raise UserError(
            f"engine.model = {engine.model!r} is an encoder, which writes no text; name a causal language model"
        )


def load_engine(engine: LanguageModel | None, context: Context) -> Engine:
    """The engine that a section of the run file describes.

    Raises:
        UserError: no such model, no key, or another process holds this worker's replies.
    """
    assert engine is not None, "RunConfig sees to it that methods with a language model have one"
    if engine.base_url is None:
        from pipeline.llm.in_process import InProcessEngine

        return InProcessEngine(load_engine_model(engine))
    return open_endpoint(engine, context.config.root / "_replies", context.worker, context.config.budget)


def load_engine_model(engine: LanguageModel) -> "LoadedModel":
    """The model in this process that a section of the run file names."""
    from pipeline.subjects.loading.model_loading import load_language_model

    return load_language_model(engine.model, engine.dtype, engine.device, engine.trust_remote_code)


def open_endpoint(config: LanguageModel, folder: Path, worker: str, budget: Budget) -> "EndpointEngine":
    """The engine over an endpoint, with the replies in FOLDER/WORKER.sqlite; its `aclose` lets go of that file.

    Raises:
        UserError: no key, no such tokenizer, or another process works as the same worker.
    """
    from pipeline.llm.endpoint.batch import BatchSender
    from pipeline.llm.endpoint.budget import SharedBudget
    from pipeline.llm.endpoint.client import Client
    from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
    from pipeline.llm.endpoint.live_sender import LiveSender
    from pipeline.llm.endpoint.response_cache import ResponseCache
    from pipeline.llm.endpoint.sender import Endpoint

    tokenizer, client = find_tokenizer(config.model, config.tokenizer, config.trust_remote_code), Client(config)
    cache = ResponseCache(folder, worker)  # the first that makes a file
    endpoint = Endpoint(config, client, cache, SharedBudget(budget, config, cache))
    live = LiveSender(endpoint)
    return EndpointEngine(endpoint, BatchSender(endpoint) if config.mode == "batch" else live, live, tokenizer)


def find_tokenizer(model: str, tokenizer: str | None, trust_remote_code: bool = False) -> Any:
    """The tokenizer that is set. Without one, that of the model's name if the hub's cache holds it, else None.

    Args:
        model: the name that the endpoint knows the model by; many servers take the hub's.
        tokenizer: hub id, package:NAME, or a folder, which needs no weights.

    Raises:
        UserError: the one that is set cannot be loaded.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    cached = None
    if tokenizer is None and "/" in model:
        with contextlib.suppress(HFValidationError):
            cached = try_to_load_from_cache(model, "tokenizer.json")
    if tokenizer is None and not isinstance(cached, str):
        return None
    from transformers import AutoTokenizer

    from pipeline.subjects.loading.model_loading import load_tokenizer, quiet_transformers

    folder = Path(cached).parent if isinstance(cached, str) else Path(tokenizer or "").expanduser()
    if tokenizer is not None and not (folder / "tokenizer.json").is_file():
        return load_tokenizer(tokenizer, trust_remote_code)
    found = None
    with quiet_transformers(), contextlib.suppress(OSError, ValueError, KeyError, ImportError):
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    if found is not None and found.is_fast:
        return found
    if tokenizer is not None:
        raise UserError(f"tokenizer = {tokenizer!r}: the folder holds no tokenizer that transformers can load")
    return None
