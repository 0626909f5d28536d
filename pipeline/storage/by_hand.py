"""Explanations that people wrote for units of a run: one JSON file each in RUN/_by_hand, for the next run to score.

A file is written under another name and then linked to its own, so a reader never sees half a file and no writer replaces
the file of another. Files are never changed afterwards.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UserError
from pipeline.storage.atomic_files import publish_once
from pipeline.storage.stores import files_in

FOLDER = "_by_hand"
"""In the run's folder."""
STAMP = "%Y%m%dT%H%M%S%f"
"""How names begin, so that their order is that of time."""


@dataclass(frozen=True)
class WrittenExplanation:
    """An explanation that somebody wrote for a unit."""

    name: str
    """Of its file, without suffix; rises with time."""
    module: str
    index: int
    polarity: str
    text: str
    written: str
    """When, in UTC, as ISO 8601 has it."""


class _Stored(BaseModel):
    """What a file holds."""

    model_config = ConfigDict(extra="forbid")
    module: str = Field(min_length=1)
    index: int = Field(ge=0)
    polarity: Literal["+", "-"]
    text: str = Field(min_length=1)
    written: AwareDatetime


def save_by_hand(root: Path, unit: tuple[str, str, int], text: str) -> WrittenExplanation:
    """Keep an explanation in a run's folder. Where the unit has the same words already, that one is returned.

    Args:
        unit: module, polarity and index, as a stage has them.
        text: the words; blanks around them are left out.

    Raises:
        UserError: the text is blank or no valid Unicode, a file of the folder is none of these, or the disk cannot be written.
    """
    module, polarity, index = unit
    text = _words(text)
    before = read_by_hand(root)
    for one in before:
        if (one.module, one.polarity, one.index, one.text) == (module, polarity, index, text):
            return one
    now = datetime.now(UTC)
    if before:  # a clock that was set back must not change the order
        now = max(now, datetime.fromisoformat(before[-1].written) + timedelta(microseconds=1))
    written = now.isoformat(timespec="microseconds")
    made = WrittenExplanation(f"{now.strftime(STAMP)}-{secrets.token_hex(4)}", module, index, polarity, text, written)
    _publish(root / FOLDER / f"{made.name}.json", made)
    return made


def read_by_hand(root: Path) -> list[WrittenExplanation]:
    """All that were saved in a run's folder, the earliest first; equal words for a unit once, even if two saved them at a time.

    Raises:
        UserError: a file is not one of these; it says which.
    """
    found: dict[tuple[str, str, int, str], WrittenExplanation] = {}
    for path in files_in(root / FOLDER, "[!.]*.json"):
        one = _read(path)
        found.setdefault((one.module, one.polarity, one.index, one.text), one)
    return list(found.values())


def _words(text: str) -> str:
    found = text.strip()
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the explanation is no valid Unicode at character {error.start}; type it anew") from None
    if not found:
        raise UserError("the explanation is blank; type some words")
    return found


def _publish(path: Path, made: WrittenExplanation) -> None:
    fields = {name: value for name, value in asdict(made).items() if name != "name"}
    publish_once(path, (json.dumps(fields, indent=1, ensure_ascii=False) + "\n").encode())


def _read(path: Path) -> WrittenExplanation:
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise UserError(f"{path} is no explanation that was saved by hand ({why}); move it away") from None
    written = stored.written.isoformat(timespec="microseconds")
    return WrittenExplanation(path.stem, stored.module, stored.index, stored.polarity, stored.text, written)
