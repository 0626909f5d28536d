"""An endpoint engine on a model server, as a run opens it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.config import Budget, LanguageModel
from pipeline.llm.endpoint.endpoint_engine import EndpointEngine
from pipeline.llm.load import open_endpoint


@asynccontextmanager
async def opened(url: str, folder: Path, **settings: Any) -> AsyncIterator[EndpointEngine]:
    """
    Args:
        folder: of the response cache.
        settings: of the engine's section of the run file.
    """
    values: dict[str, Any] = {"model": "tiny", "base_url": url, "retries": 1, "timeout": 30.0}
    engine = open_endpoint(LanguageModel(**(values | settings)), folder, "0-of-1", Budget())
    try:
        yield engine
    finally:
        await engine.aclose()
