"""Hard negatives found by loops over everything."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.config import RunConfig
from pipeline.schemas import CORPUS, EXEMPLARS
from pipeline.storage.tables import Tables
from pipeline.subjects.embedder import load_embedder
from pipeline.subjects.loading.model_loading import load_language_model
from stages.evidence import split_of
from stages.record import likeness
from stages.record.negatives import KINDS, LOW, TRIES
from stages.settings import Simulate
from stages.units import draw

MODULES = ["layers.0.mlp", "layers.1.mlp"]
WIDTH = 24
POOL, OTHERS, WANTED = 12, 9, {"similar": 3, "neighbour": 2}
"""What is looked at and for in the tests: fewer sequences and units than there are."""


class Twin:
    """All activations and embeddings of a run on a model of two layers with WIDTH neurons each."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        tables = Tables(config.root)
        corpus = tables.read(CORPUS).to_pylist()
        self.ids = {row["seq_id"]: row["token_ids"] for row in corpus}
        texts = ["".join(row["tokens"]) for row in corpus]
        vectors = load_embedder(config[Simulate].embedder).encode(texts).astype(np.float64)
        self.vectors = dict(zip(self.ids, vectors, strict=True))
        self.exemplars = tables.read(EXEMPLARS).to_pandas().query("band == 'top'")
        self.activations = {module: self._run(number) for number, module in enumerate(MODULES)}

    def _run(self, layer: int) -> dict[int, Any]:
        """(T, U) activations of each sequence by itself, NaN at the token that begins it."""
        model = load_language_model(self.config.subject.model, device="cpu").model.base_model
        seen: dict[str, torch.Tensor] = {}
        hook = model.layers[layer].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
        found = {}
        for seq_id, ids in self.ids.items():
            with torch.inference_mode():
                model(input_ids=torch.tensor([ids]))
            found[seq_id] = seen["x"][0].numpy().copy()
            found[seq_id][0] = np.nan
        hook.remove()
        return found

    def top(self, module: str, index: int, polarity: str, split: str) -> pd.DataFrame:
        return self.exemplars.query(
            "module == @module and index == @index and polarity == @polarity and split == @split"
        ).sort_values("rank")

    def mean(self, seq_ids: list[int]) -> Any:
        mean = np.mean([self.vectors[seq_id] for seq_id in seq_ids], axis=0)
        return mean / np.linalg.norm(mean)

    def expected(self, module: str, index: int, polarity: str, split: str) -> dict[str, list[int]]:
        top = self.top(module, index, polarity, split)
        sign = 1 if polarity == "+" else -1
        maxima = [value for value in sign * top["max_activation"] if value > 0]
        if not maxima:
            return {kind: [] for kind in KINDS}
        own = top["seq_id"].tolist()
        towards = self.mean(own)
        pool = [seq_id for seq_id in sorted(self.ids) if split_of(seq_id) == split][:POOL]
        near = sorted(pool, key=lambda seq_id: -self.vectors[seq_id] @ towards)
        others = draw(0, f"neighbours/{module}").permutation(WIDTH)[:OTHERS].tolist()
        tops = {
            other: self.top(module, other, polarity, split)["seq_id"].tolist() for other in others if other != index
        }
        nearest = sorted(
            (o for o in sorted(tops) if tops[o]), key=lambda o: -self.mean(tops[o][: likeness.MEAN_OF]) @ towards
        )
        ranks = range(max(len(seq_ids) for seq_ids in tops.values()))
        theirs = [
            tops[other][rank] for rank in ranks for other in nearest[: likeness.NEIGHBOURS] if rank < len(tops[other])
        ]
        chosen: dict[str, list[int]] = {}
        for kind, seq_ids in (("similar", near), ("neighbour", theirs)):
            tried = list(dict.fromkeys(seq_id for seq_id in seq_ids if seq_id not in own))[: TRIES * WANTED[kind]]
            low = [s for s in tried if np.nanmax(sign * self.activations[module][s][:, index]) < LOW * min(maxima)]
            chosen[kind] = [s for s in low if s not in chosen.get("similar", [])][: WANTED[kind]]
        return chosen
