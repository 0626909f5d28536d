"""What is simulated for a unit: its own explanations, and the controls beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import RunConfig
from stages.evidence import TopToken
from stages.settings import Simulate
from stages.simulate.lookup import render_table
from stages.units import draw, unit_name

CONSTANT = "ordinary English text"


@dataclass(frozen=True)
class Job:
    """One text to simulate on some sequences of one unit."""

    explanation: Mapping[str, Any]
    """Keys of the row: module, index, polarity, explainer, candidate."""
    control: str
    source: int
    text: str
    splits: tuple[str, ...]


def unit_jobs(
    index: int, explanations: list[dict[str, Any]], top_tokens: list[TopToken], config: RunConfig
) -> list[Job]:
    """What is simulated for one unit: its candidates, then the controls on the report sequences.

    Args:
        explanations: rows of the explanations table of all units of the module, of one polarity.
    """
    own = [row for row in explanations if row["index"] == index]
    others = [row for row in explanations if row["index"] != index and row["candidate"] == 0]
    if not own:
        return []
    order = draw(config.run.seed, "controls/" + unit_name(own[0]["module"], index, own[0]["polarity"])).permutation(
        len(others)
    )
    shuffled = [others[i] for i in order[: config[Simulate].controls]]
    return [*_own_jobs(own), *_control_jobs(own[0], shuffled, top_tokens)]


def _own_jobs(own: list[dict[str, Any]]) -> list[Job]:
    return [Job(_keys(row), "", row["index"], row["text"], ("select", "report")) for row in own]


def _keys(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("module", "index", "polarity", "explainer", "candidate")}


def _control_jobs(own: Mapping[str, Any], shuffled: list[dict[str, Any]], top_tokens: list[TopToken]) -> list[Job]:
    keys = _keys(own) | {"candidate": None}
    index = own["index"]
    jobs = [Job(keys, "shuffled", row["index"], row["text"], ("report",)) for row in shuffled]
    jobs.append(Job(keys, "constant", index, CONSTANT, ("report",)))
    words = [token for top in top_tokens if (token := top.token.strip()) and '"' not in token]
    if words:
        jobs.append(Job(keys, "top_token", index, f'the token "{words[0]}"', ("report",)))
    if top_tokens:
        jobs.append(Job(keys, "lookup", index, render_table(top_tokens), ("report",)))
    return jobs
