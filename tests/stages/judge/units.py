"""Units whose texts say whether they fire: on the word red, or on whatever a test gives."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.config.run_file import parse_config
from stages.evidence import Exemplar
from stages.judge.example_scorer import UnitTexts
from stages.settings import SECTIONS

KEYS = {"module": "layers.0.mlp", "index": 3, "polarity": "+", "explainer": "statistics", "candidate": 0}


def config(**judge: Any) -> Any:
    judge = {"methods": ["detection", "fuzzing"], "engine": {"model": "m"}, "texts": 3, "controls": 2} | judge
    values: dict[str, Any] = {
        "run": {"name": "r"}, "subject": {"model": "m", "modules": ["layers.0.mlp"]}, "corpus": {"source": "t.txt"},
        "judge": judge,
    }  # fmt: skip
    return parse_config(values, "test.toml", SECTIONS)


def exemplar(seq_id: int, band: str, tokens: Sequence[str], values: Sequence[float]) -> Exemplar:
    return Exemplar(seq_id, band, list(tokens), np.asarray(values, np.float32), "report")


def unit_of(fitting: Sequence[Exemplar], others: Sequence[Exemplar], **more: Any) -> UnitTexts:
    deciles = [1 + 10 * place // len(fitting) for place in range(len(fitting))]
    return UnitTexts("layers.0.mlp", 3, "+", list(fitting), deciles, list(others), **more)


def coloured(each: int = 10, word: Callable[[int], str] = lambda _: " red") -> UnitTexts:
    """So many texts with a word on which the unit fires, and as many without; a number tells texts apart."""
    texts = []
    for seq_id in range(2 * each):
        fires = seq_id < each
        tokens = ["the", word(seq_id) if fires else " old", " house", f" {seq_id}", " stood", " there"]
        texts.append(exemplar(seq_id, "fires" if fires else "quiet", tokens, [np.nan, 5.0 if fires else 0, 0, 0, 0, 0]))
    return unit_of(texts[:each], texts[each:])
