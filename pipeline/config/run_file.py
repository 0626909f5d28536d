"""The run file: TOML to a RunConfig, with messages that say what to mend."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import RunConfig, Section, StageSection, with_sections
from pipeline.config.section import LanguageModel, section_in
from pipeline.errors import UserError, nearest

PRESETS = Path(__file__).parent.parent / "presets"
PROJECT = Path(__file__).parent.parent.parent
"""The checkout; where the package is installed without one, the folder that it is installed in."""

Sections = tuple[type[StageSection], ...]


def load_config(path: str, sections: Sections, changes: Sequence[str] = ()) -> RunConfig:
    """Read and check a run file; a bare name is looked up among the presets.

    Args:
        changes: settings that take the place of those in the file, such as "explain.units=5".

    Raises:
        UserError: no such file, no TOML, an unknown key, or a value that is not allowed.
    """
    file = find_run_file(path)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not TOML: {error}; mend it there") from None
    for change in changes:
        change_setting(values, change)
    config = parse_config(values, str(file), sections)
    if "://" in config.run.folder:
        return config
    run = config.run.model_copy(update={"folder": str(_outputs(file) / config.run.folder)})
    return config.model_copy(update={"run": run})


def find_run_file(path: str) -> Path:
    """The file that a path or the name of a preset stands for.

    Raises:
        UserError: there is none.
    """
    file = Path(path)
    if not file.suffix and (PRESETS / f"{path}.toml").is_file():
        file = PRESETS / f"{path}.toml"
    if not file.is_file():
        presets = sorted(preset.stem for preset in PRESETS.glob("*.toml"))
        raise UserError(f"no run file {path!r}; give a TOML file or a preset ({', '.join(presets)})")
    return file.absolute()


def paths_from(path: str) -> Path:
    """The folder that the paths of a run file start from unless run.paths_from says it: its own; for a preset, the working directory."""
    file = find_run_file(path)
    return Path.cwd() if file.parent == PRESETS else file.parent


def _outputs(file: Path) -> Path:
    """The folder that run.folder starts from: that of the checkout, so that runs are found from any place."""
    if (PROJECT / "pyproject.toml").is_file():
        return PROJECT
    return Path.cwd() if file.parent == PRESETS else file.parent


def change_setting(values: dict[str, Any], change: str) -> None:
    """Put one setting into the values of a run file."""
    name, equals, text = change.partition("=")
    *path, last = name.strip().split(".")
    if not equals or not path:  # the value may be a secret, and without `=` all of it may be the value
        raise UserError(
            f"--set {repr(name) + '=...' if equals else '...'}; expected SECTION.SETTING=VALUE, such as explain.units=5"
        )
    section = values
    for part in path:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise UserError(f"--set {name}=...: {part!r} is a setting and has none of its own")
    try:
        section[last] = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        section[last] = text.strip()  # a bare word is a string


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
    section = _section_at(kind, location)
    if problem["type"] == "extra_forbidden":
        *path, last = problem["loc"]
        section, within = _section_at(kind, path), [str(part) for part in path if part in location]
        shown = ".".join([*within, "..." if section is LanguageModel and not last.isidentifier() else last])
        return f"unknown key {shown!r}; {nearest(last, list(section.model_fields))}"
    if problem["type"] == "missing":
        return f"missing key {where!r}; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"[{where}] {message}"
    if _may_be_secret(section, problem["input"]):
        return f"{where}: {message[0].lower() + message[1:]} (its value is not shown, as it may hold a secret)"
    return f"{where} = {problem['input']!r}: {message[0].lower() + message[1:]}"


def _may_be_secret(section: type[Section], value: Any) -> bool:
    """Whether a value is or may hold what nobody should see: a text in the table of a language model, or tables that may be one."""
    if isinstance(value, list):
        return any(_may_be_secret(section, one) for one in value)
    return isinstance(value, dict) or (section is LanguageModel and isinstance(value, str))


def _is_key(part: str) -> bool:
    """Whether a part of a pydantic location is a key of the file, not the tag of a union."""
    return part.replace("_", "").isalnum() and part not in {"int", "constrained-int"}


def _section_at(kind: type[RunConfig], path: Sequence[str | int]) -> type[Section]:
    """The section of the run file that a setting is in, or that it is."""
    section: type[Section] = kind
    for part in path:
        if part in section.model_fields:  # else it is a name that the user gives
            section = section_in(section.model_fields[str(part)].annotation) or section
    return section
