"""The engine over a model behind an OpenAI-compatible endpoint."""

import asyncio
import hashlib
import math
import time
from collections.abc import Container, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter
from tqdm import tqdm

from pipeline.errors import UserError
from pipeline.execution.concurrency import gather_all
from pipeline.llm.endpoint.batch import BatchSender
from pipeline.llm.endpoint.client import listed_models
from pipeline.llm.endpoint.completions import EndpointCapabilities, asks, body_of, completions
from pipeline.llm.endpoint.live_sender import LiveSender
from pipeline.llm.endpoint.number_scorers import PromptScorer, ReplyScorer
from pipeline.llm.endpoint.probe import YES, Probe
from pipeline.llm.endpoint.sender import Ask, Endpoint, Sender
from pipeline.llm.engine import (
    Completion,
    EngineError,
    Message,
    NumberPrompt,
    NumberScores,
    Request,
    refuse_too_long,
)
from pipeline.llm.prompt_encoder import PromptEncoder
from pipeline.storage.footers import canonical
from pipeline.terminal_text import safe_lines

BYTES_A_TOKEN = 3.5
"""Of English text, for a tokenizer that is not at hand."""
SMALL = 16
"""Tokens of a reply that only shows that the endpoint is well."""
TOKENS_A_MESSAGE = 4
"""What a chat template adds to a message."""
_CAPABILITIES = TypeAdapter(EndpointCapabilities)


class EndpointEngine:
    """Completes and scores with a model behind an endpoint, by requests that the probe found to work.

    The first question to it waits for the probe. What the probe found is kept in the response cache, so that a run that is
    repeated makes no request.
    """

    def __init__(self, endpoint: Endpoint, sender: Sender, live: LiveSender, tokenizer: Any = None) -> None:
        """
        Args:
            sender: carries the requests, at once or in batches.
            live: carries the probe's requests, and those that tell whether the endpoint is well.
            tokenizer: the model's, where it is at hand.
        """
        self._endpoint, self._config, self._sender, self._live = endpoint, endpoint.config, sender, live
        self._encoder = None if tokenizer is None else PromptEncoder(tokenizer)
        self.name, self.context = self._config.model, self._config.context
        """Without a set context it is what the endpoint says, once `capabilities` has been asked."""
        self._probing: asyncio.Task[EndpointCapabilities] | None = None
        self._scorer: PromptScorer | ReplyScorer | None = None

    @property
    def counts_exactly(self) -> bool:
        """Whether the model's tokenizer is at hand."""
        return self._encoder is not None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt: exact with a tokenizer, else estimated at BYTES_A_TOKEN and TOKENS_A_MESSAGE."""
        if self._encoder is not None:
            return len(self._encoder.conversation(messages).ids)
        size = sum(len(message.content.encode()) for message in messages)
        return math.ceil(size / BYTES_A_TOKEN) + TOKENS_A_MESSAGE * len(messages)

    async def capabilities(self, *, anew: bool = False) -> EndpointCapabilities:
        """What the probe found, the last time that it was made.

        Args:
            anew: ask the endpoint whatever is known.

        Raises:
            UserError: the endpoint does not answer, or the key or the model is wrong.
        """
        if self._probing is None or anew:
            self._probing = asyncio.create_task(self._probe(anew))
        probing = self._probing
        try:
            return await asyncio.shield(probing)
        except UserError:
            if self._probing is probing:
                self._probing = None
            raise

    async def complete(self, request: Request) -> list[Completion]:
        """As `Engine.complete`; what a server without `n` is asked several times counts its prompt each time."""
        can = await self.capabilities()
        if self.context is not None and self._encoder is not None:
            refuse_too_long(self.count_tokens(request.messages) + request.max_tokens, self.context)
        found = completions(await gather_all(map(self._sender.ask, asks(request, can))), request.stop)
        return found if len(found) == request.n else found * request.n

    async def score(self, prompts: Sequence[NumberPrompt]) -> list[NumberScores]:
        """As `Engine.score`; `pipeline.llm.endpoint.number_scorers` says what is exact and what is a lower bound."""
        can = await self.capabilities()
        if self._scorer is None:
            self._scorer = self._make_scorer(can)
        scorer = self._scorer
        if isinstance(scorer, ReplyScorer) and any(prompt.reply or prompt.slots != (0,) for prompt in prompts):
            raise UserError(
                f"the endpoint of {self.name} gives no log-probabilities of prompts, or engine.tokenizer is not set; "
                "only numbers at the start of a reply can be read there (`make doctor` shows what works)"
            )

        async def scores(prompt: NumberPrompt) -> NumberScores:
            try:
                return await scorer.score(prompt)
            except EngineError as error:
                return NumberScores(None, None, str(error))

        return await gather_all(map(scores, prompts))

    def mark_useless(self, requests: Sequence[Request]) -> None:
        """As `Engine.mark_useless`, for replies in the response cache."""
        if self._probing is not None and requests:
            sent = [ask for request in requests for ask in asks(request, self._probing.result())]
            self._endpoint.cache.mark_useless(self._endpoint.outgoing(ask).key for ask in sent)

    def taken(self) -> str:
        """What the requests of this process have taken, in words for people."""
        account = self._endpoint.account
        cost = "" if account.cost is None else f", cost {account.cost:,.4f}"
        return f"{account.requests:,} requests, {account.failed:,} failed, {account.tokens:,} tokens{cost}"

    def profile(self) -> dict[str, Any]:
        """What the probe found, by which the requests of this process were made; empty before it was needed."""
        known = self._probing is not None and self._probing.done() and not self._probing.cancelled()
        return asdict(self._probing.result()) if known and self._probing and not self._probing.exception() else {}

    def look_again(self, busy: Container[str]) -> None:
        """As `ResponseCache.look_again`."""
        self._endpoint.cache.look_again(busy)

    async def aclose(self) -> None:
        """As `Endpoint.aclose`, once nothing goes on in the background."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        if isinstance(self._sender, BatchSender):
            await self._sender.aclose()
        await self._live.aclose()
        await self._endpoint.aclose()

    def _make_scorer(self, can: EndpointCapabilities) -> PromptScorer | ReplyScorer:
        if can.reading.way and self._encoder is not None:
            return PromptScorer(self._sender, self._encoder, can, self.context)
        if can.logprobs:
            return ReplyScorer(self._sender, can)
        raise UserError(
            f"the endpoint of {self.name} gives no log-probabilities, which this method needs; "
            "use another method or another endpoint (`make doctor` shows what works)"
        )

    async def _probe(self, anew: bool) -> EndpointCapabilities:
        cache, config = self._endpoint.cache, self._config
        has_tokenizer = config.tokenizer or self._encoder is not None
        facts = {"url": config.base_url, "model": config.model, "tokenizer": has_tokenizer, "body": config.body}
        # The address may hold a password, so it is hashed with all else that the outcome depends on.
        fact = "probe.v2." + hashlib.sha256(canonical(facts).encode()).hexdigest()[:32]
        asked_anew = f"{fact}.anew"  # by the doctor, as another worker: the newer of the two facts counts
        known = [found for found in (cache.get_fact(fact), cache.get_fact(asked_anew)) if found]
        newest = max(known, key=lambda found: float(found["time"])) if known else {"doubtful": True}
        self._live.circuit.known = self._live.circuit.known or bool(known)
        if not anew and not newest.pop("doubtful", False):
            can = _CAPABILITIES.validate_python(newest)
        else:
            now, faults = time.time(), self._endpoint.account.faults
            probe = Probe(
                self._live, self._endpoint.client, config, self._encoder, int(1000 * now) * 10 if known else 0
            )
            can = await probe.capabilities()
            doubtful = probe.doubtful or self._endpoint.account.faults > faults
            found = asdict(can) | {"time": now, "doubtful": doubtful}
            cache.put_fact(asked_anew if anew else fact, found)
        if can.other_models and not anew:
            tqdm.write(safe_lines(f"engine.model = {self.name!r} may be wrong{listed_models(can.other_models)}"))
        self.context = config.context or can.context
        path, body = body_of(Request((Message("user", YES),), SMALL, temperature=0.0), can)
        self._live.small_question = lambda: Ask(path, body, lambda _: {}, time.time_ns())
        return can
