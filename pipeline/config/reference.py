"""The settings as text, made from the sections themselves: a table for people, a page for docs/, a run file to start from."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

from pydantic.fields import FieldInfo

from pipeline.config.run_config import RunConfig
from pipeline.config.section import LanguageModel, Section, section_in, summaries
from pipeline.errors import UserError, nearest

ENGINE = "ENGINE"
"""The name under which the settings of a language model are described, once for all sections that have one."""
WIDTH = 110
PLAIN = {"text", "table", "table of text", "list of text", "true or false"}
"""Kinds that a value or its meaning tells anyway."""


@dataclass(frozen=True)
class Setting:
    """One setting of a run file."""

    section: str
    """Its table in the run file, such as explain; NAME stands for a name that the user gives."""
    name: str
    kind: str
    """What it may be, such as "integer, at least 1"."""
    default: str | None
    """As TOML; None where it has to be given."""
    meaning: str
    engine: bool = False
    """Whether it is the table of a language model."""


def all_settings(kind: type[RunConfig]) -> list[Setting]:
    """Every setting that a run file may hold, in the order of its sections."""
    return [*_of_section("", kind), *_of_section(ENGINE, LanguageModel)]


def settings_of(kind: type[RunConfig], section: str) -> list[Setting]:
    """The settings of one section and of those within it.

    Raises:
        UserError: there is no such section.
    """
    found = [one for one in all_settings(kind) if f"{one.section}.".startswith(f"{section}.")]
    if not found:
        known = list(dict.fromkeys(one.section for one in all_settings(kind)))
        raise UserError(f"no section {section!r}; {nearest(section, known)}")
    return found


def as_text(settings: list[Setting]) -> str:
    """Settings for a terminal: each with its default and its meaning below."""
    lines, section = [], None
    for one in settings:
        if one.section != section:
            section = one.section
            lines += ["", f"[{section}]"]
        lines += ["", f"{one.name}{_default_in_words(one)}: {one.kind}"]
        lines += textwrap.wrap(one.meaning, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines).strip("\n")


def as_markdown(settings: list[Setting]) -> str:
    """Settings as one Markdown table a section."""
    lines, section = [], None
    for one in settings:
        if one.section != section:
            section = one.section
            lines += [
                "",
                f"## `[{section}]`",
                "",
                "| setting | default | what it may be | meaning |",
                "|---|---|---|---|",
            ]
        default = "required" if one.default is None else f"`{one.default}`" if one.default else ""
        cells = [f"`{one.name}`", default, one.kind, one.meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines).strip("\n")


def as_run_file(kind: type[RunConfig], given: Mapping[str, str]) -> str:
    """A run file that holds every setting: those in `given` (by "section.name", as TOML) are set, the others are comments."""
    lines: list[str] = []
    engines: list[str] = []
    section = None
    for one in _of_section("", kind):
        if one.section != section:
            section = one.section
            lines += [*engines, "", f"{'# ' if 'NAME' in section else ''}[{section}]"]
            engines = []
        if one.engine:
            engines += _commented(f"{one.meaning} Print them with: python -m pipeline settings {ENGINE}")
            engines += [f"# [{one.section}.{one.name}]", '# model = "..."']
            continue
        lines += _commented(one.meaning if one.kind in PLAIN else f"{one.meaning} ({one.kind})")
        value = given.get(f"{one.section}.{one.name}")
        lines.append(f"# {one.name} = {one.default or '...'}" if value is None else f"{one.name} = {value}")
    return "\n".join([*lines, *engines]).strip("\n") + "\n"


def _commented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _default_in_words(one: Setting) -> str:
    return " (required)" if one.default is None else f" = {one.default}" if one.default else ""


def _of_section(path: str, kind: type[Section]) -> Iterator[Setting]:
    inner: list[tuple[str, type[Section]]] = []
    schema = kind.model_json_schema()
    for name, field in kind.model_fields.items():
        own = f"{path}.{name}" if path else name
        section = section_in(field.annotation)
        if section and (not path or (section.apart and section is field.annotation)):
            inner.append((own, section))
        elif section is LanguageModel:
            meaning = f"{field.description} Its settings are those of [{ENGINE}]."
            yield Setting(path, name, f"a table [{own}]", "", meaning, engine=True)
        elif section and _is_named(field.annotation):
            inner.append((f"{own}.NAME", section))
        else:
            schema["properties"][name] |= _choices(kind, name)
            yield Setting(path, name, _kind(schema["properties"][name], schema), _default(field), _meaning(kind, name))
    for own, section in inner:
        yield from _of_section(own, section)


def _meaning(kind: type[Section], name: str) -> str:
    text = " ".join((kind.model_fields[name].description or "").split())
    named = summaries(kind.choices.get(name, {}))
    return " ".join([text, *(f"`{choice}`: {summary}." for choice, summary in named.items())]).strip()


def _choices(kind: type[Section], name: str) -> dict[str, Any]:
    """What a setting may name, as JSON schema."""
    names = {"enum": list(kind.choices.get(name, ()))}
    if not names["enum"]:
        return {}
    return names if kind.model_fields[name].annotation is str else {"items": names}


def _is_named(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _kind(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        inner = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        return "a table of " + ", ".join(inner["properties"]) if "properties" in inner else _kind(inner, whole)
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if ways := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(one, whole) for one in ways if one.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'], whole)}"
    if schema.get("type") == "object":
        values = schema.get("additionalProperties")
        return f"table of {_kind(values, whole)}" if isinstance(values, dict) else "table"
    word = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false"}
    bounds = {
        "minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
    }  # fmt: skip
    return ", ".join(
        [
            word.get(schema.get("type", ""), "any"),
            *(words.format(schema[key]) for key, words in bounds.items() if key in schema),
        ]
    )


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    return toml(field.default)


def toml(value: Any) -> str:
    """A value of a setting as TOML; empty for one that is absent."""
    if value is None:
        return ""
    if isinstance(value, Section):
        value = value.model_dump()
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {toml(one)}" for key, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
