"""Responses of units to n-grams alone, each as a text of its own."""

import pyarrow as pa
from tqdm import tqdm

from pipeline.config import RunConfig
from pipeline.execution.context import Context
from stages.sasc.methods import Chosen, Ngrams, Reading
from stages.settings import Sasc


def scan(context: Context, ngrams: Ngrams, chosen: Chosen) -> dict[str, pa.Table]:
    """Ask all modules of the model about some n-grams, in the same forward passes."""
    from pipeline.subjects.text_functions import open_model_texts
    from stages.sasc.responses import ModuleResponses

    sasc = context.config[Sasc]
    found = {module: ModuleResponses.for_run(sasc, module, units) for module, units in chosen.items()}
    texts = context.once("model", lambda config: open_model_texts(config, list(chosen), sasc.pool))
    with tqdm(total=len(ngrams.texts), desc="n-grams", unit="n-gram", leave=False, disable=None) as bar:
        for places, responses in texts.each(ngrams.texts):
            for module, values in responses.items():
                whole = len(chosen[module]) == values.shape[1]
                found[module].add(ngrams.ids[places], values if whole else values[:, chosen[module]])
            bar.update(len(places))
    return {module: responses.rows() for module, responses in found.items()}


def sizes(config: RunConfig, modules: int) -> dict[str, str]:  # noqa: ARG001 - the contract of a reading
    """One text for each n-gram, for all modules at once."""
    return {"n-grams evaluated by the subject": f"{config[Sasc].max_ngrams:,} at most"}


METHOD = Reading(scan, sizes=sizes)
