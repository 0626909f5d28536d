"""The engine over a model in this process: prompts are read once and shared by all that carry on from them."""

import asyncio
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache, partial
from itertools import takewhile

import numpy as np

from pipeline.llm.engine import (
    Capabilities,
    Completion,
    Message,
    NumberPrompt,
    NumberScores,
    PromptTooLong,
    Request,
    refuse_too_long,
)
from pipeline.llm.prefix_cache import Prefix, Row, check_reading, extend, read_rows
from pipeline.llm.prompt_encoder import NumberTokens, Prompt, PromptEncoder, normalised, number_tokens
from pipeline.llm.sampling import MOST_ALTERNATIVES, sample
from pipeline.subjects.loading.model_loading import LoadedModel, context_length
from pipeline.subjects.loading.model_source import with_revision

PREFIXES_KEPT = 4
ALONE = 4
"""A conversation with so many prompts in one call is read once for them; of the others the common beginning is."""
BATCH_TOKENS = {"cpu": 1_024, "cuda": 32_768}
"""Tokens of the rows of one batch at most, padding included; an interruption takes effect between batches."""
BATCH_LOGITS = {"cpu": 2**26, "cuda": 2**29}
"""Logits of one batch at most: reads times vocabulary."""

Encoded = dict[tuple[Message, ...], Prompt]
"""Conversations with their token ids."""


class InProcessEngine:
    """Completes and scores with a model in this process, one call at a time.

    The tokens that conversations share up to their last message (the few-shot examples) are read once. Their keys and values
    are kept, for the PREFIXES_KEPT last used, and never changed. All prompts or replies that carry on from them are batched
    behind them.

    What stands in one batch depends on one call alone, never on the calls that wait beside it: batches of other sizes round
    differently, and rows must not depend on the order of work. So the same call gives identical numbers on the same machine
    with the same number of threads. A prompt in another call gives them within rounding (1e-4 for float32 weights).
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.name = with_revision(loaded.name, loaded.revision)
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._encoder = PromptEncoder(loaded.tokenizer)
        limits = (context_length(loaded.model.config), loaded.tokenizer.model_max_length)
        self._limit = min(int(limit) for limit in limits if limit)
        self.context: int | None = self._limit
        self._shared = lru_cache(maxsize=PREFIXES_KEPT)(partial(extend, loaded.model, Prefix()))
        self._numbers: NumberTokens | None = None
        self._turn = asyncio.Lock()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that the messages make."""
        return len(self._encoder.conversation(messages).ids)

    async def capabilities(self) -> Capabilities:
        """As for every model in this process; whether it can be read behind a prefix shows at the first `score`."""
        return Capabilities(MOST_ALTERNATIVES, reply_numbers=True, prompt_numbers=True, n=True, seed=True)

    def mark_useless(self, requests: Sequence[Request]) -> None:
        """No reply is kept."""

    async def aclose(self) -> None:
        """Forget the texts that were read."""
        self._shared.cache_clear()

    async def complete(self, request: Request) -> list[Completion]:
        """As `Engine.complete`; the i-th reply depends on the seed, the attempt and i, not on `n` beyond rounding."""
        async with self._turn:
            prompt = self._encoder.conversation(request.messages)
            refuse_too_long(len(prompt.ids) + request.max_tokens, self._limit)
            prefix = self._prefix(prompt.shared, prompt.ids[:-1])
            replies = await sample(self._model, self._tokenizer, prefix, prompt.ids[-1], request)
            return [
                Completion(reply.text, len(prompt.ids), len(reply.ids), reply.finished, reply.tokens())
                for reply in replies
            ]

    async def score(self, prompts: Sequence[NumberPrompt]) -> list[NumberScores]:
        """As `Engine.score`; `prompt_tokens` are those of a prompt's whole text, however few of them were read for it.

        Raises:
            UserError: the model's tokenizer or its kind of attention does not allow it.
        """
        async with self._turn:
            if self._numbers is None:
                check_reading(self._model)
                self._numbers = number_tokens(self._encoder)
            encoded = {prompt.messages: self._encoder.conversation(prompt.messages) for prompt in prompts}
            results: dict[int, NumberScores] = {}
            for group in _groups(prompts, encoded):
                results |= await self._score_group(prompts, group, encoded, self._numbers)
            return [results[number] for number in range(len(prompts))]

    async def _score_group(
        self, prompts: Sequence[NumberPrompt], group: Sequence[int], encoded: Encoded, numbers: NumberTokens
    ) -> dict[int, NumberScores]:
        """Scores of the prompts of one group, batched behind the beginning that they have in common."""
        texts = [encoded[prompts[number].messages] for number in group]
        pairs = zip(min(text.ids[:-1] for text in texts), max(text.ids[:-1] for text in texts), strict=False)
        common = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))  # all texts begin with it
        results, rows, tokens = {}, {}, {}
        for number, text in zip(group, texts, strict=True):
            pieces = self._encoder.reply(prompts[number].reply) if prompts[number].reply else []
            tokens[number] = len(text.ids) + sum(map(len, pieces))
            row, positions = _row(text.ids[len(common) :], pieces, prompts[number].slots, numbers)
            try:
                refuse_too_long(len(common) + positions, self._limit)
                rows[number] = row
            except PromptTooLong as error:
                results[number] = NumberScores(None, None, str(error))
        prefix = self._prefix(texts[0].shared, common) if rows else Prefix()
        for batch in self._batches(rows):
            read = read_rows(self._model, prefix, [rows[number] for number in batch], numbers.wanted)
            values = read.cpu().numpy().astype(np.float64)
            ends = np.cumsum([len(rows[number].reads) for number in batch])
            for number, part in zip(batch, np.split(values, ends[:-1]), strict=True):
                logs = numbers.numbers(part.reshape(-1, 1 + len(numbers.beginnings), len(numbers.wanted)))
                if np.isnan(logs).any():
                    results[number] = NumberScores(None, None, "the model's output is not a number", tokens[number])
                else:
                    results[number] = NumberScores(*normalised(logs), "", tokens[number])
            await asyncio.sleep(0)
        return results

    def _batches(self, rows: dict[int, Row]) -> Iterable[list[int]]:
        """Rows by rising length, as many as the limits allow, at least one."""
        vocabulary = int(self._model.get_output_embeddings().weight.shape[0])
        kind = "cpu" if self._model.device.type == "cpu" else "cuda"
        batch: list[int] = []
        for number in sorted(rows, key=lambda number: len(rows[number].ids)):
            reads = sum(len(rows[other].reads) for other in [*batch, number])
            too_long = (len(batch) + 1) * len(rows[number].ids) > BATCH_TOKENS[kind]
            if batch and (too_long or reads * vocabulary > BATCH_LOGITS[kind]):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch

    def _prefix(self, shared: tuple[int, ...], ids: tuple[int, ...]) -> Prefix:
        """`ids`, read; of them the tokens that are `shared` with other conversations are read once and kept."""
        shared = shared[: len(ids)]
        return extend(self._model, self._shared(shared), ids[len(shared) :])


def _groups(prompts: Sequence[NumberPrompt], encoded: Encoded) -> list[list[int]]:
    """Numbers of the prompts to read behind one prefix: those of one conversation, if many; else all that share one."""
    counts = Counter(prompt.messages for prompt in prompts)
    groups: dict[Hashable, list[int]] = {}
    for number, prompt in enumerate(prompts):
        shared = encoded[prompt.messages].shared
        alone = counts[prompt.messages] >= ALONE or not shared
        groups.setdefault(prompt.messages if alone else shared, []).append(number)
    return list(groups.values())


def _row(
    start: Sequence[int], pieces: Sequence[Sequence[int]], slots: Sequence[int], numbers: NumberTokens
) -> tuple[Row, int]:
    """The prompt's last tokens and the reply with the branches that numbers need, and the positions it takes."""
    ids = list(start)
    ends = [len(ids) - 1]  # ends[i]: index of the last token before piece i
    for piece in pieces:
        ids += piece
        ends.append(len(ids) - 1)
    longest = max(map(len, numbers.beginnings), default=0)
    positions = max([len(ids), *(ends[slot] + 1 + longest for slot in slots)])
    del ids[ends[slots[-1]] + 1 if slots else 1 :]  # nothing is read behind the last slot
    parents, reads = list(range(-1, len(ids) - 1)), []
    for slot in slots:
        reads.append(ends[slot])
        first = len(ids) - 1
        for beginning in numbers.beginnings:
            before = numbers.after(beginning[:-1])
            reads.append(len(ids))
            parents.append(first + before if before else ends[slot])
            ids.append(beginning[-1])
    return Row(ids, parents, reads), positions
