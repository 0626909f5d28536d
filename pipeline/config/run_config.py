"""The settings of a run: sections that any run has, and those that its stages bring."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, create_model, field_validator, model_validator

from pipeline.config.language_model import Budget, LanguageModel
from pipeline.config.section import Count, Positive, Section
from pipeline.config.subject import Subject, refuse_own


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run and of its folder."""
    seed: Count = 0
    """Seed of everything drawn at random."""
    folder: str = "outputs"
    """Folder that holds the run's folder. A relative one starts from the checkout; without a checkout, from the run file's folder."""
    prompts: str = ""
    """A folder of your own prompts: a file there takes the place of the one of its name in prompts/, such as
    explain/token_space.v1.jinja; the others stay as they are."""
    keep_partials: bool = False
    """Keep the partial records in `_partials` after they are merged: many times the disk of the dataset, but then settings
    that concern the merge alone, such as record.quantiles, can be changed with --redo record.merge."""
    methods: Annotated[list[str], Field(min_length=1)] = ["simulation"]
    """How units are explained: simulation records activations on the corpus and simulates them (Bills et al. 2023), sasc
    evaluates n-grams and texts written for the explanation (Singh et al. 2023)."""


class Corpus(Section):
    source: Annotated[str, Field(min_length=1)]
    """hub:DATASET[@REVISION][/CONFIG], a text, JSONL, CSV or Parquet file or folder, package:NAME, or precomputed:NAME for the
    sequences of subject.precomputed.NAME as they are."""
    text_field: str = "text"
    """Field of a JSONL record, or column of a CSV or Parquet file or a hub dataset, that holds the text."""
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

    @field_validator("source")
    @classmethod
    def _refuse_own(cls, source: str) -> str:
        refuse_own(source)
        return source

    @model_validator(mode="after")
    def _tail_fits(self) -> "Corpus":
        if self.min_tokens > self.seq_len:
            raise ValueError(f"min_tokens = {self.min_tokens} is more than seq_len = {self.seq_len}; lower it")
        return self


class StageSection(Section):
    """A section that a stage brings; in a run file it may be left out."""

    key: ClassVar[str]
    """Its name in the run file."""

    def agree(self, config: "RunConfig") -> None:
        """Check it against the other sections.

        Raises:
            ValueError: they contradict each other; the message says what to change.
        """


S = TypeVar("S", bound=StageSection)


class RunConfig(Section):
    """A whole run file. The section of a stage is `config[Explain]`, by the class that describes it."""

    run: Run
    subject: Subject
    corpus: Corpus
    budget: Budget = Budget()

    def __getitem__(self, section: type[S]) -> S:
        found: S = getattr(self, section.key)
        return found

    @model_validator(mode="after")
    def _sections_agree(self) -> "RunConfig":
        for _, section in self:
            if isinstance(section, StageSection):
                section.agree(self)
        return self

    @model_validator(mode="after")
    def _prices_known(self) -> "RunConfig":
        for model in self.language_models() if self.budget.max_cost is not None else ():
            if model.base_url and (model.price_in is None or model.price_out is None):
                raise ValueError(
                    f"budget.max_cost needs the prices of {model.model}; add price_in and price_out to its engine"
                )
        return self

    def language_models(self) -> Iterator[LanguageModel]:
        """Every language model that a section names."""
        for _, section in self:
            if isinstance(section, Section):
                yield from (value for _, value in section if isinstance(value, LanguageModel))

    @property
    def root(self) -> Path:
        """The run's own folder."""
        return Path(self.run.folder) / self.run.name


@cache
def with_sections(sections: tuple[type[StageSection], ...]) -> type[RunConfig]:
    """The class of run files with these sections of stages, each left at its defaults unless given."""
    fields: dict[str, Any] = {section.key: (section, section()) for section in sections}
    return create_model("RunFile", __base__=RunConfig, **fields)
