"""The run file: TOML to a RunConfig, with messages that say what to mend."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import RunConfig, Section, StageSection, with_sections
from pipeline.errors import UserError, nearest

PRESETS = Path(__file__).parent.parent / "presets"

Sections = tuple[type[StageSection], ...]


def load_config(path: str, sections: Sections) -> RunConfig:
    """Read and check a run file; a bare name is looked up among the presets.

    Raises:
        UserError: no such file, no TOML, an unknown key, or a value that is not allowed.
    """
    file = Path(path)
    if not file.suffix and (PRESETS / f"{path}.toml").is_file():
        file = PRESETS / f"{path}.toml"
    if not file.is_file():
        presets = sorted(preset.stem for preset in PRESETS.glob("*.toml"))
        raise UserError(f"no run file {path!r}; give a TOML file or a preset ({', '.join(presets)})")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not TOML: {error}; mend it there") from None
    return parse_config(values, str(file), sections)


def parse_config(values: dict[str, Any], origin: str, sections: Sections) -> RunConfig:
    """Check the values of a run file; `origin` names it in messages."""
    kind = with_sections(sections)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem, kind)}" for problem in error.errors())
        raise UserError(f"{origin}:\n{problems}") from None


def _explain(problem: Any, kind: type[RunConfig]) -> str:
    """One line for one pydantic error: where, which value, what is allowed."""
    location = [part for part in problem["loc"] if isinstance(part, int) or _is_key(part)]
    where = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(kind, [part for part in location[:-1] if isinstance(part, str)])
        return f"unknown key {where!r}; {nearest(str(location[-1]), known)}"
    if problem["type"] == "missing":
        return f"missing key {where!r}; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"[{where}] {message}"
    return f"{where} = {problem['input']!r}: {message[0].lower() + message[1:]}"


def _is_key(part: str) -> bool:
    """Whether a part of a pydantic location is a key of the file, not the tag of a union."""
    return part.replace("_", "").isalnum() and part not in {"int", "constrained-int"}


def _known_keys(kind: type[RunConfig], path: list[str]) -> list[str]:
    """The keys that a section of the run file may hold."""
    section: Any = kind
    for part in path:
        annotation = section.model_fields[part].annotation
        arguments = [arg for arg in getattr(annotation, "__args__", ()) if isinstance(arg, type)]
        section = next((arg for arg in arguments if issubclass(arg, Section)), annotation)
    return list(section.model_fields)
