"""Language models from the run file: in this process, or behind an endpoint."""

import hashlib
from typing import TYPE_CHECKING, Any

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.llm.engine import Engine
from pipeline.storage.shards import canonical
from pipeline.subjects.loading.model_source import resolve_model

if TYPE_CHECKING:
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
    from pipeline.llm.endpoint.endpoint_engine import open_endpoint

    return open_endpoint(engine, context.config.root / "_replies", context.worker, context.config.budget)


def load_engine_model(engine: LanguageModel) -> "LoadedModel":
    """The model in this process that a section of the run file names."""
    from pipeline.subjects.loading.model_loading import load_language_model

    return load_language_model(engine.model, engine.dtype, engine.device, engine.trust_remote_code)
