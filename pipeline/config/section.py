"""What all sections of a run file are."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import nearest

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
DEVICES = r"^(auto|cpu|cuda(:\d+)?|mps)$"
Device = Annotated[str, Field(pattern=DEVICES)]

Choices = Mapping[str, str]
"""What a setting may name, each as `module:object`, which is imported when it is used. The object has a `summary`."""


class Section(BaseModel):
    """A table of the run file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True)

    choices: ClassVar[Mapping[str, Choices]] = {}
    """By setting, what it may name, or what each name of its list may be."""

    @model_validator(mode="after")
    def _choices_known(self) -> "Section":
        for setting, name in self.chosen():
            if name not in self.choices[setting]:
                raise ValueError(f"{setting} = {name!r}; {nearest(name, list(self.choices[setting]))}")
        return self

    def chosen(self) -> Iterator[tuple[str, str]]:
        """(setting, name) of everything that is named."""
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
