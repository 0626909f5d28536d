"""Language models behind OpenAI-compatible endpoints."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Budget, LanguageModel

if TYPE_CHECKING:
    from pipeline.llm.endpoint.endpoint_engine import EndpointEngine


def open_endpoint(config: LanguageModel, folder: Path, worker: str, budget: Budget) -> "EndpointEngine":
    """The engine over an endpoint, with the replies in FOLDER/WORKER.sqlite; its `aclose` lets go of that file.

    Raises:
        UserError: no key, or another process works as the same worker.
    """
    from pipeline.llm.endpoint.batch import BatchSender
    from pipeline.llm.endpoint.budget import SharedBudget
    from pipeline.llm.endpoint.client import Client
    from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
    from pipeline.llm.endpoint.live import LiveSender
    from pipeline.llm.endpoint.response_cache import ResponseCache
    from pipeline.llm.endpoint.sender import Endpoint

    client = Client(config)  # before a file is made
    cache = ResponseCache(folder, worker)
    endpoint = Endpoint(config, client, cache, SharedBudget(budget, config, cache))
    live = LiveSender(endpoint)
    return EndpointEngine(endpoint, BatchSender(endpoint) if config.mode == "batch" else live, live)
