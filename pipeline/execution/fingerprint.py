"""What identifies a stage's output: a hash over all that can change its rows."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.execution.stage import Shard, Stage

CREATED_BY = "neurogloss 0.1.0"


def stage_inputs(stage: Stage, config: RunConfig, upstream: Mapping[str, str]) -> dict[str, Any]:
    """All that can change the rows of a stage, the fingerprints of the stages it reads (`upstream`) among it."""
    return {
        "stage": stage.name,
        "version": stage.version,
        "schemas": [table.tag for table in stage.writes],
        "settings": stage.settings(config),
        "upstream": dict(upstream),
    }


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the inputs as canonical JSON."""
    return hashlib.sha256(canonical(inputs).encode()).hexdigest()[:16]


def footer(inputs: Mapping[str, Any], shard: Shard, seconds: float) -> dict[str, str]:
    """What the footer of a shard's files says of where they come from; `seconds` is the time the shard took."""
    return {
        "fingerprint": fingerprint(inputs),
        "inputs": canonical(inputs),
        "shard": canonical(shard.key),
        "seconds": f"{seconds:.3f}",
        "git_commit": git_commit(),
        "created_by": CREATED_BY,
    }


def canonical(value: Mapping[str, Any]) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two inputs differ, as `path: old -> new` lines."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


@cache
def git_commit() -> str:
    """The commit of this checkout, `-dirty` added where files differ from it; `unknown` outside a checkout."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
