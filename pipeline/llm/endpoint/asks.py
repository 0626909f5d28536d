"""What carries requests to an endpoint, at once or in batches."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from pipeline.llm.endpoint.replies import Answer


class NotFound(UserError):
    """The endpoint knows no such model, or no such path (404)."""


class Asks(Protocol):
    """A sender of requests: each is answered from the reply cache if it can be."""

    @property
    def client(self) -> "AsyncOpenAI":
        """For what is no request to a model: lists of models, files, batches."""
        ...

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        attempt: int = 0,
        *,
        tokens_at_most: int,
        keep: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> "Answer":
        """What `keep` leaves of the reply.

        Args:
            path: /chat/completions or /completions.
            body: lacks only the model and the fields of the run file.
            attempt: tells requests with the same body apart in the cache.
            tokens_at_most: of all replies together, for the budget.
            keep: reduces a reply to what is read of it; what it raises on garbage counts as a fault of the transport.

        Raises:
            PromptTooLong: the prompt and its replies do not fit the context.
            Rejected: the endpoint does not take the request as it is.
            EngineError: no usable reply after all retries.
            NotFound: no such model or path.
            UserError: nothing can be asked: wrong key, no server, no budget.
        """
        ...

    async def aclose(self) -> None:
        """Give connections back."""
        ...
