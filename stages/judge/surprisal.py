"""`surprisal`: how much less a language model is surprised by a text with the explanation in front of it than without.

The model runs in this process and may be small; the subject itself unless judge.surprisal_model names another.

Shapes: B texts, L tokens of the longest, V vocabulary.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.stage import Context
from pipeline.imports import IMPORTED
from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_source import resolve_model, with_revision
from stages.few_shot import one_line
from stages.judge.example_scorer import Answer, ExampleScorer, Item, Judged, UnitTexts
from stages.methods import Method
from stages.settings import Judge

if TYPE_CHECKING:
    from pipeline.llm.prefix_cache import Prefix
    from pipeline.subjects.loading.model_loading import LoadedModel

BATCH_TOKENS = 512
"""Tokens of a forward pass at most; its logits take 4 V bytes a token."""

OPENINGS = 32
"""Explanations that are kept as they were read; 100 of their tokens take 5 MB with the smallest models, 13 with one of 7B."""

Opening = tuple["Prefix", int]
"""A text that others carry on from, read but for its last token, and that token."""


class SurprisalScorer(ExampleScorer):
    """Ranks texts by the nats a token that the explanation saves; what stands in front of texts is read once for all of them."""

    def __init__(self, loaded: "LoadedModel", prompt: Prompt) -> None:
        self.model = with_revision(loaded.name, loaded.revision)
        self.prompt_id = prompt.id
        self._model, self._tokenizer, self._prompt = loaded.model, loaded.tokenizer, prompt
        # an explanation is that of a unit, and then a control of others
        self._read = lru_cache(OPENINGS)(self._opening)
        self._without = self._opening(prompt.part("without"))
        self._before: tuple[list[str], list[float]] = ([], [])

    async def judge(self, explanation: str, items: Sequence[Item], unit: UnitTexts) -> Judged:  # noqa: ARG002 - the contract
        """The mean loss of each text's tokens without the explanation minus that with it, in nats a token."""
        texts = [item.text for item in items]
        if self._before[0] != texts:  # controls are asked about the same texts, one after the other
            self._before = (texts, self.losses(self._without, texts))
        after = self.losses(self._read(self._prompt.part("with", explanation=one_line(explanation))), texts)
        saved = [before - now for before, now in zip(self._before[1], after, strict=True)]
        return [(item, _answer(value)) for item, value in zip(items, saved, strict=True)]

    def _opening(self, text: str) -> Opening:
        """What stands in front of a text; its last token is read with the text, as it predicts the first one."""
        from pipeline.llm.prefix_cache import Prefix, extend

        begin = [self._tokenizer.bos_token_id] if self._tokenizer.bos_token_id is not None else []
        ids = [*begin, *self._ids(text)]
        return extend(self._model, Prefix(), ids[:-1]), ids[-1]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def losses(self, opening: Opening, texts: Sequence[str]) -> list[float]:
        """Mean negative log-likelihood of the tokens of each text behind an opening, in nats; NaN for a text without a token."""
        prefix, last = opening
        rows = {number: [last, *self._ids(text)] for number, text in enumerate(texts)}
        found = dict.fromkeys(rows, np.nan)
        batch: list[int] = []
        for number in sorted((one for one in rows if len(rows[one]) > 1), key=lambda one: len(rows[one])):
            if batch and (len(batch) + 1) * len(rows[number]) > BATCH_TOKENS:
                found |= zip(batch, self._batch(prefix, [rows[one] for one in batch]), strict=True)
                batch = []
            batch.append(number)
        if batch:
            found |= zip(batch, self._batch(prefix, [rows[one] for one in batch]), strict=True)
        return [found[number] for number in range(len(texts))]

    def _batch(self, prefix: "Prefix", rows: Sequence[Sequence[int]]) -> list[float]:
        """Padding stands on the right, where no token that counts sees it."""
        import torch

        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.tensor([[*row, *[0] * (int(lengths.max()) - len(row))] for row in rows], device=self._model.device)
        positions = torch.arange(ids.shape[1], device=ids.device)[None].expand(len(rows), -1) + prefix.length
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids, position_ids=positions, past_key_values=prefix.cache(grows=False), use_cache=True
            ).logits[:, :-1]  # (B, L - 1, V)
            chosen = logits.gather(2, ids[:, 1:, None])[:, :, 0].float() - logits.float().logsumexp(dim=2)
        counted = torch.arange(1, ids.shape[1])[None] < lengths[:, None]
        return [float(value) for value in -(chosen.cpu() * counted).sum(dim=1) / counted.sum(dim=1)]


def _answer(value: float) -> Answer:
    return Answer(None, value=value) if np.isfinite(value) else Answer(None, error="the text has no loss")


def _spec(config: RunConfig) -> str:
    return config[Judge].surprisal_model or config.subject.model


def _build(context: Context, _: object, prompts: Sequence[Prompt]) -> SurprisalScorer:
    from pipeline.llm.prefix_cache import check_reading
    from pipeline.subjects.loading.model_loading import load_language_model, load_subject

    name, subject = context.config[Judge].surprisal_model, context.config.subject
    loaded = load_language_model(name, device=subject.device) if name else load_subject(subject)
    check_reading(loaded.model)
    return SurprisalScorer(loaded, prompts[0])


def _settings(config: RunConfig) -> dict[str, Any]:
    return {"surprisal_model": resolve_model(_spec(config)).revision}


def _check(config: RunConfig) -> None:
    """Raises UserError where there is no such model, or it predicts no next token."""
    from pipeline.subjects.loading.model_loading import describe_model

    spec = _spec(config)
    if config.corpus.source == IMPORTED and not config[Judge].surprisal_model:
        raise UserError(
            'methods = "surprisal" asks the subject, and an imported run has none; name judge.surprisal_model'
        )
    if not describe_model(spec, config.subject.trust_remote_code).causal:
        raise UserError(
            f"surprisal by {spec!r}, an encoder, which predicts no next token; name another in judge.surprisal_model"
        )


SURPRISAL = Method(
    "how much less a language model in this process is surprised by the text behind the explanation",
    _build,
    "none",
    prompts=("judge/surprisal.v1",),
    settings=_settings,
    check=_check,
)
