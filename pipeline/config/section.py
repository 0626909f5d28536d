"""What all sections of a run file are, and the one that several of them hold: a language model."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from pipeline.errors import nearest

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
DEVICES = r"^(auto|cpu|cuda(:\d+)?|mps)$"
Device = Annotated[str, Field(pattern=DEVICES)]

Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""Names of methods: a list, or one alone."""
Choices = Mapping[str, str]
"""What a setting may name, each as `module:object`, which is imported when it is used. The object has a `summary`."""


class Section(BaseModel):
    """A table of the run file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)

    apart: ClassVar[bool] = False
    """Whether the reference describes it by itself where it is part of another section."""
    choices: ClassVar[Mapping[str, Choices]] = {}
    """By setting, what it may name, or what each name of its list may be."""

    @model_validator(mode="after")
    def _choices_known(self) -> "Section":
        for setting, name in self.chosen():
            if name not in self.choices[setting]:
                raise ValueError(f"{setting} = {name!r}; {nearest(name, list(self.choices[setting]))}")
        return self

    def chosen(self) -> Iterator[tuple[str, str]]:
        """(setting, name) of every choice that is named."""
        for setting in self.choices:
            value = getattr(self, setting)
            yield from ((setting, name) for name in ([value] if isinstance(value, str) else value))


def choice(choices: Choices, name: str) -> Any:
    """The object that a name stands for."""
    module, _, found = choices[name].partition(":")
    return getattr(import_module(module), found)


def summaries(choices: Choices) -> dict[str, str]:
    """What each of the names is, in a line."""
    return {name: choice(choices, name).summary for name in choices}


def section_in(annotation: Any) -> type[Section] | None:
    """The section that the type of a setting holds, such as that of dict[str, BlackBox]."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_in(part))), None)


class LanguageModel(Section):
    """A model that explains or simulates: in this process, or behind an OpenAI-compatible endpoint (`base_url`)."""

    model: Text
    """As subject.model; behind an endpoint, the name that it knows the model by."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """As subject.dtype, for a model in this process."""
    device: Device = "auto"
    """As subject.device, for a model in this process."""
    trust_remote_code: bool = False
    """As subject.trust_remote_code."""
    base_url: str | None = None
    """Endpoint, such as http://localhost:8000/v1; without it the model runs in this process."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of the environment variable that holds the endpoint's key; without it no key is sent."""
    tokenizer: str | None = None
    """The endpoint's tokenizer: hub id, folder or package:NAME. Reading numbers off a prompt needs it; estimates get exact by it."""
    context: Positive | None = None
    """Tokens of prompt and reply together at most; without it, what the endpoint says, or none."""
    concurrency: Positive = 32
    """Requests in flight at the endpoint at most."""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds to wait for a reply."""
    retries: Count = 6
    """Further tries after a request that failed."""
    patience: Annotated[float, Field(ge=0)] = 3600.0
    """Seconds for which an endpoint that is out of order is waited for; then the stage stops, and the same command carries on. 0 waits
    for none, and each request that fails is tried again by itself."""
    max_failure_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A stage stops where more than this share of its replies, from the twentieth on, cannot be used; 1 never stops it."""
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

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        parts = urlsplit(value or "http://host")
        try:
            complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is no number
            complete = False
        if not complete:
            raise ValueError("base_url is no address of an endpoint; write one such as http://localhost:8000/v1")
        return value

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Of tokens read and written, in the currency of budget.max_cost; None where a price that counts is not known."""
        parts = [(prompt_tokens, self.price_in), (completion_tokens, self.price_out)]
        if any(tokens and price is None for tokens, price in parts):
            return None
        return sum(tokens * price for tokens, price in parts if price is not None) / 1e6


class Budget(Section):
    """Limits over all stages and workers of the run; the run stops before it passes one, and goes on once it is raised."""

    max_tokens_total: Positive | None = None
    """Tokens read and written by models behind endpoints."""
    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Cost at the prices of the engines; every engine with a base_url needs both prices then."""
