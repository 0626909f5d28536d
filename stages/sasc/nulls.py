"""Null units: random directions of a sentence embedder's space, which go through every stage as the units of a run do.

They have n-grams of their own, explanations made of these, texts for and against them, and scores, so that whatever a
function without a concept can reach by the whole procedure is what a unit's score is compared with. Their rows stand in the
tables of SASC under the module NULLS.
"""

from pipeline.config import BlackBox, RunConfig
from pipeline.subjects.identity import BLACK_BOX
from stages.sasc.sasc_tables import NULLS
from stages.settings import Sasc
from stages.units import draw

NAME = NULLS.removeprefix(BLACK_BOX)


def with_nulls(config: RunConfig) -> RunConfig:
    """The run file with the null units as one more module, if it wants any."""
    sasc, subject = config[Sasc], config.subject
    if not sasc.nulls:
        return config
    seed = int(draw(config.run.seed, NAME).integers(2**31))
    box = BlackBox(
        call="pipeline.black_boxes.random_directions:random_directions",
        arguments={"units": sasc.nulls, "seed": seed, "embedder": sasc.embedder, "device": sasc.device},
        units=sasc.nulls,
    )
    changed = {"modules": [*subject.modules, NULLS], "black_boxes": subject.black_boxes | {NAME: box}}
    return config.model_copy(update={"subject": subject.model_copy(update=changed)})
