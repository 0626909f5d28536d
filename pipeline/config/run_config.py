"""The settings of a run: sections that any run has, and those that its stages bring."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, PrivateAttr, ValidationError, create_model, field_validator, model_validator

from pipeline.config.launching import Launch
from pipeline.config.section import Budget, Count, LanguageModel, Positive, Section
from pipeline.config.subject import Subject, refuse_own
from pipeline.storage.stores import place

METHOD_NAME = r"^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$"
"""What a variant can be called: its name is part of the names of files."""


class Run(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run and of its folder."""
    seed: Count = 0
    """Seed of everything drawn at random."""
    units_seed: Count | None = None
    """Seed that draws the units to explain; run.seed unless given. With it, runs with other seeds explain the same units."""
    null: Literal["none", "permuted"] = "none"
    """permuted gives each unit's activations to other sequences of the same split, so that there is nothing to find: a trial of the scores,
    see docs/scores.md."""
    folder: str = "outputs"
    """Folder that holds the run's folder. A relative one starts from the checkout; without a checkout, from the run file's folder.
    It may be in an object store, such as s3://bucket/runs; see docs/cluster.md."""
    paths_from: str = ""
    """Folder that relative paths of the run file start from; unless given, its own, and for a preset the working directory."""
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
    method: ClassVar[str] = ""
    """The method of run.methods that alone has a use for it; empty for all."""

    def agree(self, config: "RunConfig") -> None:
        """Check it against the other sections.

        Raises:
            ValueError: they contradict each other; the message says what to change.
        """


S = TypeVar("S", bound=StageSection)
T = TypeVar("T", bound=Section)
M = TypeVar("M", bound="MethodsSection")


class MethodsSection(StageSection):
    """The section of a stage that works by one method or by several, one after the other."""

    listed: ClassVar[str]
    """The setting that lists the methods."""
    column: ClassVar[str]
    """The column of tables that tells their rows apart."""
    shared: ClassVar[frozenset[str]] = frozenset()
    """Settings that no variant can have of its own."""

    variants: dict[Annotated[str, Field(pattern=METHOD_NAME, max_length=60)], dict[str, Any]] = {}
    """Methods with settings of their own, by names that the list of methods can hold: each is a table of settings that take the place
    of those of this section. The method is among them, and is the default one unless given."""
    _name: str = PrivateAttr("")

    @property
    def names(self) -> list[str]:
        """Methods and variants that are listed, each once."""
        return list(dict.fromkeys(getattr(self, self.listed)))

    @property
    def name(self) -> str:
        """What rows call the method of a section that has one; see `named`."""
        return self._name or self.names[0]

    @property
    def is_named(self) -> bool:
        """Whether it is the section of one method; see `named`."""
        return bool(self._name)

    @property
    def used(self) -> str:
        """The method of a section that has one; see `named`."""
        return self.names[0]

    def named(self: M, name: str) -> M:
        """The section as it is for one of its methods, or for one of its variants, whose settings are then in it.

        Raises:
            ValidationError: the settings of the variant are not allowed.
        """
        given = self.variants.get(name, {self.listed: [name]})
        if name in self.variants:
            known = self.model_dump(include=self.model_fields_set - {"variants", self.listed})
            found = type(self).model_validate({**known, **given})
        else:
            found = self.model_copy(update={**given, "variants": {}})
        found._name = name
        return found

    def chosen(self) -> Iterator[tuple[str, str]]:
        """(setting, name) of every choice that is named; a variant's are checked with it."""
        yield from ((setting, name) for setting, name in super().chosen() if name not in self.variants)

    @model_validator(mode="after")
    def _variants_allowed(self: M) -> M:
        for name, given in self.variants.items():
            if name in self.choices[self.listed]:
                raise ValueError(f"variants.{name}: that is the name of a method; give the variant another one")
            if fixed := {"variants", *self.shared}.intersection(given):
                raise ValueError(
                    f"variants.{name}.{min(fixed)}: all methods of the section share it; leave it out here"
                )
            try:
                found = self.named(name)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(map(str, ("variants", name, *first["loc"])))
                raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
            if len(found.names) != 1:
                raise ValueError(f"variants.{name}.{self.listed} = {found.names}; a variant has one method")
        return self


class RunConfig(Section):
    """A whole run file. The section of a stage is `config[Explain]`, by the class that describes it."""

    run: Run
    subject: Subject
    corpus: Corpus
    budget: Budget = Budget()
    launch: Launch = Launch()

    def __getitem__(self, section: type[S]) -> S:
        found: S = getattr(self, section.key)
        return found

    @property
    def has_methods(self) -> bool:
        """Whether it is the run file as it is for some methods; see `with_methods`."""
        return any(section.is_named for _, section in self if isinstance(section, MethodsSection))

    def with_methods(self, methods: Mapping[str, str]) -> "RunConfig":
        """The run file as it is for some methods, given by their columns, such as {"explainer": "statistics"}."""
        sections = [section for _, section in self if isinstance(section, MethodsSection)]
        return self.model_copy(
            update={one.key: one.named(methods[one.column]) for one in sections if one.column in methods}
        )

    @model_validator(mode="after")
    def _sections_agree(self) -> "RunConfig":
        for _, section in self:
            if isinstance(section, StageSection) and section.method in ("", *self.run.methods):
                for one in _with_variants(section):
                    one.agree(self)
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
            for one in _with_variants(section) if isinstance(section, Section) else ():
                yield from (value for _, value in one if isinstance(value, LanguageModel))

    @property
    def root(self) -> Path:
        """The run's own folder."""
        return place(self.run.folder) / self.run.name


def _with_variants(section: T) -> list[T]:
    variants = section.variants if isinstance(section, MethodsSection) else {}
    return [section, *(section.named(name) for name in variants)]  # type: ignore[attr-defined]


@cache
def with_sections(sections: tuple[type[StageSection], ...]) -> type[RunConfig]:
    """The class of run files with these sections of stages, each left at its defaults unless given."""
    fields: dict[str, Any] = {section.key: (section, section.model_construct()) for section in sections}
    return create_model("RunFile", __base__=RunConfig, **fields)
