"""The engine over a model behind an OpenAI-compatible endpoint."""

import asyncio
import hashlib
import math
import time
from collections.abc import Sequence

from pipeline.config import LanguageModel
from pipeline.errors import UserError
from pipeline.execution.fingerprint import canonical
from pipeline.llm.endpoint.asks import Asks
from pipeline.llm.endpoint.bodies import Ask, asks
from pipeline.llm.endpoint.passages import PassageReader, ReplyReader
from pipeline.llm.endpoint.probe import Probe
from pipeline.llm.endpoint.profile import Profile
from pipeline.llm.endpoint.reading import completions, keeper
from pipeline.llm.endpoint.replies import Answer, Replies
from pipeline.llm.endpoint.together import together
from pipeline.llm.endpoint.tokenizers import find_tokenizer
from pipeline.llm.engine import (
    Capabilities,
    Completion,
    EngineError,
    Message,
    NumberPrompt,
    NumberScores,
    PromptTooLong,
    Request,
)
from pipeline.llm.prompt_encoder import PromptEncoder

BYTES_A_TOKEN = 3.5
"""Of English text, for a tokenizer that is not at hand."""
TOKENS_A_MESSAGE = 4
"""What a chat template adds to a message."""


class EndpointEngine:
    """Completes and scores with a model behind an endpoint, by requests that the probe found to work.

    The first question to it waits for the probe, whose outcome is kept in the reply cache, so that a run that is repeated
    makes no request. Every answer comes through the cache.
    """

    def __init__(self, config: LanguageModel, sender: Asks, replies: Replies, live: Asks | None = None) -> None:
        """
        Args:
            sender: carries the requests, at once or in batches.
            replies: keeps what the probe found.
            live: carries the probe's requests; needed where `sender` works in batches.
        """
        self.name = config.model
        self.context = config.context
        """Without the setting, what the endpoint says, once `capabilities` has been asked."""
        self._config, self._sender, self._replies, self._live = config, sender, replies, live or sender
        self._encoder: PromptEncoder | None = None
        self._tokenizer_looked_for = False
        self._probing: asyncio.Task[Profile] | None = None
        self._reader: PassageReader | ReplyReader | None = None

    @property
    def counts_exactly(self) -> bool:
        """Whether the model's tokenizer is at hand."""
        return self._find_encoder() is not None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt: exact with a tokenizer, else estimated at BYTES_A_TOKEN and TOKENS_A_MESSAGE."""
        encoder = self._find_encoder()
        if encoder is not None:
            return len(encoder.conversation(messages).ids)
        size = sum(len(message.content.encode()) for message in messages)
        return math.ceil(size / BYTES_A_TOKEN) + TOKENS_A_MESSAGE * len(messages)

    async def capabilities(self) -> Capabilities:
        """What the probe found.

        Raises:
            UserError: the endpoint does not answer, or the key or the model is wrong.
        """
        return (await self.profile()).capabilities()

    async def profile(self, *, anew: bool = False) -> Profile:
        """What the probe found, the last time that it was made.

        Args:
            anew: ask the endpoint whatever is known.
        """
        if self._probing is None or anew:
            self._probing = asyncio.create_task(self._found_profile(anew))
        probing = self._probing
        try:
            return await asyncio.shield(probing)
        except UserError:
            if self._probing is probing:
                self._probing = None
            raise

    async def complete(self, request: Request) -> list[Completion]:
        """As `Engine.complete`; what a server without `n` is asked several times counts its prompt each time."""
        profile = await self.profile()
        encoder = self._find_encoder()
        if self.context is not None and encoder is not None:
            needed = len(encoder.conversation(request.messages).ids) + request.max_tokens
            if needed > self.context:
                raise PromptTooLong(f"{needed} tokens do not fit the model's context of {self.context}")
        logprobs = min(request.logprobs, profile.logprobs) > 0
        answers = await together(self._ask(ask, logprobs) for ask in asks(request, profile))
        found = completions(answers, request.stop)
        return found if len(found) == request.n else found * request.n

    async def _ask(self, ask: Ask, logprobs: bool) -> Answer:
        return await self._sender.ask(
            ask.path, ask.body, ask.attempt, tokens_at_most=ask.tokens_at_most, keep=keeper(ask, logprobs)
        )

    async def score(self, passages: Sequence[NumberPrompt]) -> list[NumberScores]:
        """As `Engine.score`; see `pipeline.llm.endpoint.passages` for what is exact and what is a lower bound."""
        profile = await self.profile()
        if self._reader is None:
            self._reader = self._make_reader(profile)
        reader = self._reader
        if isinstance(reader, ReplyReader) and any(passage.reply or passage.slots != (0,) for passage in passages):
            raise UserError(
                f"the endpoint of {self.name} gives no log-probabilities of prompts, or engine.tokenizer is not set; "
                'only simulator = "one_at_a_time" can read numbers there'
            )
        return await together(_safely(reader, passage) for passage in passages)

    def _make_reader(self, profile: Profile) -> PassageReader | ReplyReader:
        encoder = self._find_encoder()
        if profile.reading.way and encoder is not None:
            return PassageReader(self._sender, encoder, profile, self.context)
        if profile.logprobs:
            return ReplyReader(self._sender, profile)
        raise UserError(
            f'the endpoint of {self.name} gives no log-probabilities; use simulator = "generated" or "json", '
            "or another endpoint (`make doctor` shows what works)"
        )

    async def aclose(self) -> None:
        """Give connections back."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self._sender.aclose()
        if self._live is not self._sender:
            await self._live.aclose()

    async def _found_profile(self, anew: bool) -> Profile:
        encoder = self._find_encoder()
        fact = self._fact(encoder)
        asked_anew = (
            f"{fact}.anew"  # by the doctor, who may be another worker, for whom a run's own fact has to give way
        )
        known = [found for found in (self._replies.get_fact(fact), self._replies.get_fact(asked_anew)) if found]
        if known and not anew:
            profile = Profile.from_json(max(known, key=lambda found: float(found["time"])))
        else:
            now = time.time()
            profile = await Probe(self._live, self._config, encoder, int(1000 * now) * 10 if anew else 0).profile()
            self._replies.put_fact(asked_anew if anew else fact, profile.to_json() | {"time": now})
        self.context = self._config.context or profile.context
        return profile

    def _fact(self, encoder: PromptEncoder | None) -> str:
        """Names the probe's outcome by all that it depends on; the address may hold a password, so it is hashed."""
        values = {
            "url": self._config.base_url,
            "model": self._config.model,
            "tokenizer": self._config.tokenizer or encoder is not None,
            "body": self._config.body,
        }
        return "probe.v1." + hashlib.sha256(canonical(values).encode()).hexdigest()[:32]

    def _find_encoder(self) -> PromptEncoder | None:
        """The model's tokenizer: the one that is set, else by the model's name if the hub's cache has it."""
        if not self._tokenizer_looked_for:
            self._tokenizer_looked_for = True
            tokenizer = find_tokenizer(self._config.model, self._config.tokenizer, self._config.trust_remote_code)
            self._encoder = None if tokenizer is None else PromptEncoder(tokenizer)
        return self._encoder


async def _safely(reader: PassageReader | ReplyReader, passage: NumberPrompt) -> NumberScores:
    """What a passage gives; an error of its own is its result."""
    try:
        return await reader.score(passage)
    except EngineError as error:
        return NumberScores(None, None, str(error))
