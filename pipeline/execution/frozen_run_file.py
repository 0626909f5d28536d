"""The run file as a run was made with: every setting, written out so that the run can be made again, without any secret."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pipeline.config import RunConfig
from pipeline.config.run_file import Sections, change_setting, parse_config

Json = dict[str, Any]
FREE = {"body", "arguments"}
"""Settings that hold whatever the user likes."""
NAMES = re.compile(r"key|token(?!i[sz])|secret|passw|auth|credential", re.IGNORECASE)
"""Names within them that say that a text is secret."""
SECRET = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w+/=.~-]{20,}")
"""Texts within them that look like a key."""
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
"""What names of environment variables mostly look like, and keys do not."""
LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
"""User and password in an address."""


@dataclass(frozen=True)
class FrozenRun:
    """A run file that was read from the provenance of a run."""

    config: RunConfig
    paths_from: Path
    """The folder that its relative paths start from."""
    left_out: list[str]
    """Settings that were not written, as they may hold a secret."""

    @property
    def is_harmless(self) -> bool:
        """Whether its models can be used without running code that the file names, and without sending a key somewhere."""
        engines = list(self.config.language_models())
        runs_code = [bool(self.config.subject.black_boxes), self.config.subject.trust_remote_code]
        runs_code += [bool(self.config.run.prompts)]  # templates can call what they like
        runs_code += [engine.trust_remote_code for engine in engines]
        return not any(runs_code) and not any(engine.key_variable or engine.headers for engine in engines)


def freeze(config: RunConfig) -> Json:
    """The settings of a run file as JSON, those that were left out, and the folder that relative paths start from.

    Left out are headers and names of keys that are not names of environment variables, user, password and query of addresses, and
    texts of `body` and `arguments` that look like a secret or are called like one.
    """
    left_out: list[str] = []
    values = _without_secrets(config.model_dump(mode="json"), (), left_out)
    del values["run"]["folder"]  # a run may be moved
    return {"run_file": values, "left_out": left_out, "paths_from": os.getcwd()}


def thaw(frozen: Mapping[str, Any], root: Path, sections: Sections, changes: Sequence[str] = ()) -> FrozenRun:
    """The run file of a run in the folder `root` from what `freeze` made of it.

    Args:
        changes: settings to put in, such as "explain.engine.base_url=http://localhost:8000/v1".

    Raises:
        UserError: a setting is unknown by now, or has a value that is not allowed any more.
    """
    values = json.loads(json.dumps(frozen["run_file"]))
    values["run"] = {**values.get("run", {}), "name": root.name, "folder": str(root.parent)}
    for change in changes:
        change_setting(values, change)
    config = parse_config(values, f"the run file kept of {root}", sections)
    return FrozenRun(config, Path(frozen["paths_from"]), list(frozen["left_out"]))


def as_toml(values: Mapping[str, Any]) -> str:
    """The settings as a run file; those without a value are left out."""
    lines: list[str] = []
    for name, section in values.items():
        lines += ["", f"[{_key(name)}]"]
        lines += [f"{_key(key)} = {_toml(value)}" for key, value in section.items() if value is not None]
    return "\n".join(lines).strip() + "\n"


def _without_secrets(value: Any, path: tuple[str, ...], left_out: list[str]) -> Any:
    if isinstance(value, Mapping):
        kept = {}
        for name, inner in value.items():
            place = (*path, str(name))
            if isinstance(inner, str) and _is_secret(inner, place):
                left_out.append(".".join(place))
            else:
                kept[name] = _without_secrets(inner, place, left_out)
        return kept
    if isinstance(value, list):
        secret = [isinstance(inner, str) and _is_secret(inner, path) for inner in value]
        left_out += [".".join(path)] * any(secret)
        return [
            _without_secrets(inner, path, left_out) for inner, hidden in zip(value, secret, strict=True) if not hidden
        ]
    if isinstance(value, str):
        shown = _without_login(value, is_address=path[-1:] == ("base_url",))
        left_out += [".".join(path)] * (shown != value)
        return shown
    return value


def _is_secret(text: str, path: tuple[str, ...]) -> bool:
    if path[-1] == "key_variable":
        return not _is_variable(text)
    if path[-2:-1] == ("headers",):
        return not (text.startswith("env:") and _is_variable(text[4:]))
    for at, name in enumerate(path):
        if name in FREE:
            return bool(NAMES.search(".".join(path[at + 1 :])) or SECRET.fullmatch(text))
    return False


def _is_variable(text: str) -> bool:
    """Whether a text is the name of an environment variable, and not by mistake what it holds."""
    return text in os.environ or VARIABLE.fullmatch(text) is not None


def _without_login(text: str, *, is_address: bool) -> str:
    shown = LOGIN.sub("", text)
    if is_address and "?" in shown:
        shown = urlunsplit(urlsplit(shown)._replace(query=""))
    return shown


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_toml(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
