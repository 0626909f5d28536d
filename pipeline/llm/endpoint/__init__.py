"""Language models behind OpenAI-compatible endpoints."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Budget, LanguageModel

if TYPE_CHECKING:
    from pipeline.llm.endpoint.engine import EndpointEngine


def open_endpoint(config: LanguageModel, folder: Path, worker: str, budget: Budget) -> "EndpointEngine":
    """The engine over an endpoint, with the replies in FOLDER/WORKER.sqlite; its `aclose` lets go of that file.

    Raises:
        UserError: no key, or another process works as the same worker.
    """
    from pipeline.llm.endpoint.engine import EndpointEngine
    from pipeline.llm.endpoint.ledger import Ledger
    from pipeline.llm.endpoint.replies import Replies
    from pipeline.llm.endpoint.secrets import Secrets
    from pipeline.llm.endpoint.sender import Sender

    Secrets.of(config)  # before a file is made
    replies = Replies(folder, worker)
    ledger = Ledger.of(budget, config, replies)
    live = Sender(config, replies, ledger)
    if config.mode == "live":
        return EndpointEngine(config, live, replies)
    from pipeline.llm.endpoint.batch import BatchSender

    return EndpointEngine(config, BatchSender(config, replies, ledger), replies, live)
