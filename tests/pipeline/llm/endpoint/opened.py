"""An endpoint engine on a model server, as a run opens it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.engine import EndpointEngine
from pipeline.llm.endpoint.ledger import Ledger
from pipeline.llm.endpoint.replies import Replies
from pipeline.llm.endpoint.sender import Sender


@asynccontextmanager
async def opened(url: str, folder: Path, **settings: Any) -> AsyncIterator[EndpointEngine]:
    """
    Args:
        folder: of the reply cache.
        settings: of the engine's section of the run file.
    """
    values: dict[str, Any] = {"model": "tiny", "base_url": url, "retries": 1, "timeout": 30.0}
    config = LanguageModel(**(values | settings))
    replies = Replies(folder, "0-of-1")
    engine = EndpointEngine(config, Sender(config, replies, Ledger.of(Budget(), config, replies)), replies)
    try:
        yield engine
    finally:
        await engine.aclose()
