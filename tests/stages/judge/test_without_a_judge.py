"""Embedding and surprisal rank texts by an explanation without any language model that answers questions."""

import asyncio

import numpy as np
import pytest
import torch

from pipeline.prompts import Prompt
from pipeline.subjects.embedder import load_embedder
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.judge.answer_scores import scores
from stages.judge.embedding import EmbeddingScorer
from stages.judge.example_scorer import ExampleScorer, Item
from stages.judge.judge_explanation import judge_explanation
from stages.judge.surprisal import SurprisalScorer
from tests.stages.judge.units import KEYS, config, exemplar, unit_of

WEATHER = [
    "It had rained for three days.",
    "A storm took the roof off the barn.",
    "Snow lay on the hills.",
    "The fog was thick.",
]
OTHERS = ["The bank raised its rates.", "She paid for the tickets.", "He plays the violin.", "The law was passed."]
UNIT = unit_of(
    [exemplar(n, "fires", [text], [1.0]) for n, text in enumerate(WEATHER)],
    [exemplar(10 + n, "quiet", [text], [0.0]) for n, text in enumerate(OTHERS)],
)


def score(scorer: ExampleScorer, text: str) -> float:
    row, others = KEYS | {"text": text}, [KEYS | {"index": 5, "text": "names of football clubs"}]
    settings = config(methods=["embedding"], engine=None, controls=1)
    rows, found = asyncio.run(judge_explanation(row, others, UNIT, scorer, settings))
    assert len(rows) == 16
    assert all(one["says"] is None and one["value"] is not None and one["status"] == "ok" for one in rows)
    assert found["example_score"] == found["auroc"]
    assert found["tp"] is None
    return float(found["auroc"])


def test_the_embedder_ranks_texts_by_what_they_are_about() -> None:
    scorer = EmbeddingScorer(load_embedder())
    assert score(scorer, "weather: rain, snow, storms and fog") == 1.0
    assert score(scorer, "money, music and the law") < 0.2


@pytest.mark.slow
def test_a_small_language_model_is_less_surprised_by_what_is_explained(smollm2: LoadedModel) -> None:
    scorer = SurprisalScorer(smollm2, Prompt("judge/surprisal.v1"))
    assert score(scorer, "weather: rain, snow, storms and fog") > 0.8
    assert score(scorer, "money, music and the law") < 0.5


def test_losses_behind_a_shared_opening_are_those_of_plain_reading(smollm2: LoadedModel) -> None:
    scorer, opening = SurprisalScorer(smollm2, Prompt("judge/surprisal.v1")), "A passage with rain:"
    texts = [*WEATHER, "", "Rain"]
    found = scorer.losses(scorer._opening(opening), texts)
    assert np.isnan(found[4])
    encode = smollm2.tokenizer
    for text, value in zip(texts, found, strict=True):
        if not text:
            continue
        start = [encode.bos_token_id, *encode(opening, add_special_tokens=False)["input_ids"]]
        ids = torch.tensor([start + encode(text, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            logs = smollm2.model(ids).logits[0].float().log_softmax(dim=1)
        plain = -logs[len(start) - 1 : -1].gather(1, ids[0, len(start) :, None]).mean()
        assert value == pytest.approx(float(plain), abs=1e-4)


def test_a_text_that_has_no_loss_counts_nowhere(smollm2: LoadedModel) -> None:
    scorer = SurprisalScorer(smollm2, Prompt("judge/surprisal.v1"))
    items = [Item("fires", "Rain fell.", True, 1, 1), Item("quiet", "", False, 2)]
    judged = asyncio.run(scorer.judge("rain", items, UNIT))
    rows = [
        {"source": 3, "control": "", **vars(item), **vars(answer), "error": answer.error or None}
        for item, answer in judged
    ]
    found = scores(rows, scorer, UNIT, 0)
    assert (found["n_failed"], found["n_other"], found["status"]) == (1, 0, "failed")
