"""The engine over a model in this process: prompts are read once and shared by all that carry on from them."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.llm.encoding import Prompt, PromptEncoder
from pipeline.llm.engine import Completion, EngineError, Message, NumberScores, Passage
from pipeline.llm.forward import Prefix, Row, extend, read_rows
from pipeline.llm.numbers import NumberTokens, Probabilities, number_tokens
from pipeline.llm.sampling import sample
from pipeline.subjects.load import LoadedModel

PREFIXES_KEPT = 4
BATCH_TOKENS = {"cpu": 4_096, "cuda": 32_768}
"""Tokens of the rows of one batch at most, padding included."""
BATCH_LOGITS = {"cpu": 2**26, "cuda": 2**29}
"""Logits of one batch at most: reads times vocabulary."""
CHECK_TOLERANCE = {True: 0.01, False: 1.0}
"""Difference of log-probabilities that ends a run, by whether the weights are float32."""


class InProcessEngine:
    """Completes and scores with a model in this process.

    The tokens that conversations share up to their last message (the few-shot examples) are read once and their keys and
    values kept, for the PREFIXES_KEPT last used; then the rest of each conversation is read once, and all passages or
    replies that carry on from it are batched behind it. Nothing that is kept is ever changed.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.name = f"{loaded.name.partition('@')[0]}@{loaded.revision}"
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._encoder = PromptEncoder(loaded.tokenizer)
        self.context = context_length(loaded)
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._number_tokens: NumberTokens | None = None

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that the messages make."""
        return len(self._encoder.conversation(messages).ids)

    def complete(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        stop: Sequence[str],
        seed: int,
    ) -> list[Completion]:
        """As `Engine.complete`; the i-th reply to a prompt depends on `seed` and i alone, not on `n`."""
        prompt = self._encoder.conversation(messages)
        if len(prompt.ids) + max_tokens > self.context:
            raise EngineError(
                f"a prompt of {len(prompt.ids)} tokens and a reply of {max_tokens} do not fit {self.context} tokens"
            )
        prefix = self._read(prompt)
        texts = sample(self._model, self._tokenizer, prefix, prompt.ids[-1], n, temperature, max_tokens, stop, seed)
        return [Completion(text, len(prompt.ids), tokens, finished) for text, tokens, finished in texts]

    def score(self, passages: Sequence[Passage]) -> list[NumberScores]:
        """As `Engine.score`: passages with the same messages are batched behind their common prefix.

        Raises:
            UserError: the model's tokenizer or its kind of attention does not allow it.
        """
        if self._number_tokens is None:
            self._number_tokens = number_tokens(self._encoder)
            check_reading(self._model)
        results: list[NumberScores | None] = [None] * len(passages)
        groups: dict[tuple[Message, ...], list[int]] = {}
        for number, passage in enumerate(passages):
            groups.setdefault(passage.messages, []).append(number)
        for messages, numbers in groups.items():
            prompt = self._encoder.conversation(messages)
            rows: dict[int, Row] = {}
            for number in numbers:
                row, positions = self._row(prompt.ids[-1], passages[number], self._number_tokens)
                if (needed := len(prompt.ids) - 1 + positions) <= self.context:
                    rows[number] = row
                else:
                    error = f"{needed} tokens do not fit the model's context of {self.context}"
                    results[number] = NumberScores(None, None, error)
            for number, scores in self._score_rows(prompt, rows, self._number_tokens):
                results[number] = scores
        return [result for result in results if result is not None]

    def _row(self, first: int, passage: Passage, numbers: NumberTokens) -> tuple[Row, int]:
        """The reply behind the prompt's last token with the branches that numbers need, and the positions it takes."""
        ids, ends = [first], [0]  # ends[i]: index of the last token before piece i
        for piece in self._encoder.reply(passage.reply):
            ids += piece
            ends.append(len(ids) - 1)
        parents, reads = list(range(-1, len(ids) - 1)), []
        longest = max((node.depth + 1 for node in numbers.nodes), default=0)
        positions = max([len(ids), *(ends[slot] + 1 + longest for slot in passage.slots)])
        for slot in passage.slots:
            reads.append(ends[slot])
            start = len(ids)
            for node in numbers.nodes:
                reads.append(len(ids))
                parents.append(ends[slot] if node.parent < 0 else start + node.parent)
                ids.append(node.token)
        return Row(ids, parents, reads), positions

    def _score_rows(
        self, prompt: Prompt, rows: dict[int, Row], numbers: NumberTokens
    ) -> Iterable[tuple[int, NumberScores]]:
        if not rows:
            return
        prefix = self._read(prompt)
        for batch in self._batches(rows):
            read = read_rows(self._model, prefix, [rows[number] for number in batch], numbers.wanted)
            values = read.cpu().numpy().astype(np.float64)
            ends = np.cumsum([len(rows[number].reads) for number in batch])
            for number, part in zip(batch, np.split(values, ends[:-1]), strict=True):
                yield number, _scores(part.reshape(-1, 1 + len(numbers.nodes), len(numbers.wanted)), numbers)

    def _batches(self, rows: dict[int, Row]) -> Iterable[list[int]]:
        """Rows by rising length, as many as the limits allow, at least one."""
        vocabulary = int(self._model.get_output_embeddings().weight.shape[0])
        kind = "cpu" if self._model.device.type == "cpu" else "cuda"
        batch: list[int] = []
        reads = 0
        for number in sorted(rows, key=lambda number: len(rows[number].ids)):
            row = rows[number]
            too_long = (len(batch) + 1) * len(row.ids) > BATCH_TOKENS[kind]
            if batch and (too_long or (reads + len(row.reads)) * vocabulary > BATCH_LOGITS[kind]):
                yield batch
                batch, reads = [], 0
            batch.append(number)
            reads += len(row.reads)
        yield batch

    def _read(self, prompt: Prompt) -> Prefix:
        """The prompt without its last token, whose output is still wanted, as a prefix."""
        ids = prompt.ids[:-1]
        shared = prompt.shared[: len(ids)]
        if not shared:
            return extend(self._model, None, ids)
        if shared not in self._prefixes:
            self._prefixes[shared] = extend(self._model, None, shared)
            while len(self._prefixes) > PREFIXES_KEPT:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(shared)
        return extend(self._model, self._prefixes[shared], ids[len(shared) :])


def context_length(loaded: LoadedModel) -> int:
    """Tokens that the model can read at once."""
    config = loaded.model.config.get_text_config(decoder=True)
    limits = [getattr(config, "max_position_embeddings", None), loaded.tokenizer.model_max_length]
    return min((int(limit) for limit in limits if limit and limit > 0), default=2**31)


def check_reading(model: Any) -> None:
    """Compare reading behind a shared prefix, padded and with a branch, with plain reading of a few tokens.

    Raises:
        UserError: they differ, as for attention that needs positions in another form, or for state-space layers.
    """
    ids = [3 + 7 * place % 50 for place in range(24)]
    row = Row([*ids[12:23], ids[23]], [*range(-1, 10), 4], [10, 11])
    try:
        prefix = extend(model, None, ids[:12])
        found = read_rows(model, prefix, [Row(ids[12:], list(range(-1, 11)), [11]), row], range(60))
        with torch.inference_mode():
            texts = (ids, ids[:23], [*ids[:17], ids[23]])
            plain = [model(torch.tensor([text], device=model.device)).logits[0, -1] for text in texts]
        expected = torch.stack(plain).float().log_softmax(dim=1)[:, :60]
        difference = float((found - expected).abs().max())
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{_cannot(model)}: {error}") from error
    if not difference < CHECK_TOLERANCE[model.dtype == torch.float32]:
        raise UserError(f"{_cannot(model)}: log-probabilities differ by {difference:.3g}")


def _cannot(model: Any) -> str:
    return f"{type(model).__name__} cannot be read behind a shared prefix, which all_at_once needs; use another model"


def _scores(log_probabilities: Probabilities, numbers: NumberTokens) -> NumberScores:
    """Normalised probabilities and coverage from (S, 1 + N, W) log-probabilities of the wanted tokens."""
    logs = numbers.numbers(log_probabilities)
    if np.isnan(logs).any():
        return NumberScores(None, None, "the model's output is not a number")
    with np.errstate(under="ignore", invalid="ignore"):
        total = np.logaddexp.reduce(logs, axis=1)
        probabilities = np.exp(logs - total[:, None])
        return NumberScores(probabilities.astype(np.float32), np.exp(total).astype(np.float32))
