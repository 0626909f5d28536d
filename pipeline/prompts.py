"""Load, render and hash the versioned texts in prompts/; `python -m pipeline.prompts` records new ones."""

import hashlib
import json
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound

from pipeline.errors import UserError

FOLDER = Path(__file__).parent.parent / "prompts"
RECORD = "digests.toml"
HEADING = """# SHA-256 of every prompt file. A version listed here has been used and stays as it is: to change a prompt, add its
# next version and run: python -m pipeline.prompts
"""
_VERSION = re.compile(r"\.v(\d+)\.")


@cache
def _environment() -> Environment:
    return Environment(  # noqa: S701 - prompts are plain text, nothing is served as HTML
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def render(prompt_id: str, **values: object) -> str:
    """The text of `prompts/PROMPT_ID.jinja` with its values filled in.

    A prompt id is a path and a version, such as `explain/token_activation.v1`.
    """
    try:
        return _environment().get_template(f"{prompt_id}.jinja").render(**values)
    except TemplateNotFound:
        raise UserError(f"no prompt {prompt_id!r} in {FOLDER}; see CONTRIBUTING.md on how to add a version") from None


def digest(prompt_id: str) -> str:
    """SHA-256 of the prompt's file, which takes part in the fingerprint of whatever uses it."""
    path = FOLDER / f"{prompt_id}.jinja"
    if not path.is_file():
        raise UserError(f"no prompt {prompt_id!r} in {FOLDER}; see CONTRIBUTING.md on how to add a version")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(prefix: str = "", folder: Path = FOLDER) -> dict[str, str]:
    """Digest of every prompt file whose path in the folder starts with `prefix`, by path."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if name.startswith(prefix) and name != RECORD and not path.name.startswith(".")
    }


def digests_with_examples(prefix: str) -> dict[str, str]:
    """As `digests`, with the files of few-shot examples that these prompts name in their part `few_shot`."""
    found = digests(prefix)
    for name in list(found):
        if 'part == "few_shot"' in (FOLDER / name).read_text(encoding="utf-8"):
            found |= digests(render(name.removesuffix(".jinja"), part="few_shot").strip() + ".")
    return found


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
