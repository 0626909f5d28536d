"""Load, render and hash the versioned texts in prompts/; `python -m pipeline.prompts` records new ones."""

import hashlib
import json
import re
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound

from pipeline.errors import UserError, nearest

FOLDER = Path(__file__).parent.parent / "prompts"
RECORD = "digests.toml"
HEADING = """# SHA-256 of every prompt file. A version listed here has been used and stays as it is: to change a prompt, add its
# next version and run: python -m pipeline.prompts
"""
_VERSION = re.compile(r"\.v(\d+)\.")


@dataclass(frozen=True)
class Prompt:
    """One version of a prompt: a Jinja file of several parts, and the file of examples that its part `few_shot` names."""

    name: str
    """Path and version, such as explain/token_activation.v1."""
    own: str = ""
    """A folder of the user's own prompts: a file there takes the place of the one of its name in prompts/."""

    @property
    def id(self) -> str:
        """What rows say: the name, behind the user's folder where the text is the user's own."""
        file = _file(f"{self.name}.jinja", self.own)
        return self.name if file.is_relative_to(FOLDER) else file.with_suffix("").as_posix()

    def render(self, **values: object) -> str:
        """The text with its values filled in.

        Raises:
            UserError: there is no such prompt, or the user's own has a mistake.
        """
        try:
            return _environment(self.own).get_template(f"{self.name}.jinja").render(**values)
        except TemplateNotFound:
            raise _no_prompt(self.name) from None
        except TemplateError as error:
            if self.id == self.name:
                raise
            raise UserError(
                f"{self.id}.jinja: {error.message}; its parts and values are those of prompts/{self.name}.jinja"
            ) from None

    def part(self, part: str, **values: object) -> str:
        """One part of it, without line breaks around."""
        return self.render(part=part, **values).strip("\n")

    def examples(self) -> dict[str, Any]:
        """The examples that it names, so that its digest covers them."""
        return _examples(self)

    def digests(self) -> dict[str, str]:
        """SHA-256 of its file and of its examples, by path: they take part in the fingerprint of whatever uses it."""
        files = [f"{self.name}.jinja"]
        if not _file(files[0], self.own).is_file():
            raise _no_prompt(self.name)
        if 'part == "few_shot"' in _file(files[0], self.own).read_text(encoding="utf-8"):
            files.append(self.part("few_shot") + ".toml")
        return {name: _digest(_file(name, self.own)) for name in files}


def refuse_unknown_prompts(own: str) -> None:
    """Check a folder of the user's own prompts; empty for none.

    Raises:
        UserError: there is no such folder, or a file in it would take no prompt's place.
    """
    if own and not Path(own).is_dir():
        raise UserError(f"run.prompts = {own!r}: no such folder; make it, or leave the setting out")
    known = list(digests())
    for name in digests("", Path(own)) if own else ():
        if name not in known:
            raise UserError(f"{own}/{name} takes the place of no file in {FOLDER}; {nearest(name, known)}")


@cache
def _environment(own: str) -> Environment:
    return Environment(  # noqa: S701 - prompts are plain text, nothing is served as HTML
        loader=FileSystemLoader([own, FOLDER] if own else [FOLDER]),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


@cache
def _examples(prompt: Prompt) -> dict[str, Any]:
    file = _file(prompt.part("few_shot") + ".toml", prompt.own)
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file}, the examples of the prompt {prompt.id}, cannot be read: {error}") from None


def _file(name: str, own: str) -> Path:
    """A file of a prompt: the user's own where there is one."""
    return Path(own) / name if own and (Path(own) / name).is_file() else FOLDER / name


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _no_prompt(name: str) -> UserError:
    return UserError(f"no prompt {name!r} in {FOLDER}; see CONTRIBUTING.md on how to add a version")


def digests(prefix: str = "", folder: Path = FOLDER) -> dict[str, str]:
    """Digest of every prompt file whose path in the folder starts with `prefix`, by path."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: _digest(path)
        for name, path in files.items()
        if name.startswith(prefix) and name != RECORD and not path.name.startswith(".")
    }


def problems(folder: Path = FOLDER) -> list[str]:
    """What breaks the rule that a used version of a prompt is never edited, one message for each file.

    A version counts as used once its digest is recorded in `digests.toml`.
    """
    found, recorded = digests("", folder), _recorded(folder)
    messages = []
    for name in sorted(found.keys() | recorded.keys()):
        following = _VERSION.sub(lambda match: f".v{int(match[1]) + 1}.", name)
        if name not in found:
            messages.append(f"prompts/{name} is gone, but rows of finished runs name it; restore it")
        elif not _VERSION.search(name):
            messages.append(f"prompts/{name} has no version in its name; call it NAME.v1.EXTENSION")
        elif name not in recorded:
            messages.append(f"prompts/{name} is not recorded; run: python -m pipeline.prompts")
        elif found[name] != recorded[name]:
            messages.append(f"prompts/{name} was edited; restore it and put the new text into prompts/{following}")
    return messages


def record(folder: Path = FOLDER) -> list[str]:
    """Record the digests of new prompt files and return their names; a digest once recorded is never changed here."""
    recorded = _recorded(folder)
    new = {name: value for name, value in digests("", folder).items() if name not in recorded}
    lines = [f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in sorted({**recorded, **new}.items())]
    (folder / RECORD).write_text(HEADING + "".join(lines), encoding="utf-8")
    return sorted(new)


def _recorded(folder: Path) -> dict[str, str]:
    path = folder / RECORD
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def main() -> None:
    """Record new prompt files; complain of edited ones and exit with 2."""
    for name in record():
        sys.stdout.write(f"recorded prompts/{name}\n")
    if messages := problems():
        sys.stderr.write("\n".join(messages) + "\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
