"""What has to be known of a run before its scores are believed: that there was nothing to find in it, or nothing learnt in its subject."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.execution.provenance import read_provenance


def caveats(run_file: Mapping[str, Any]) -> list[str]:
    """In words, from the settings of a run file; nothing of an ordinary run.

    >>> caveats({"run": {"null": "none"}, "subject": {"weights": "trained"}})
    []
    """
    run, subject = run_file.get("run", {}), run_file.get("subject", {})
    found = []
    if run.get("null", "none") != "none":
        found.append(
            f'A null run (run.null = "{run["null"]}"): each unit\'s activations were given to other sequences, so there is nothing to '
            "find, and whatever is found is chance"
        )
    if (weights := subject.get("weights", "trained")) != "trained":
        found.append(
            f"The subject has {weights} weights (subject.weights, seed {subject.get('weights_seed', 0)}): it is a copy of "
            f"{subject.get('model')} without what it has learnt"
        )
    return found


def caveats_of(root: Path) -> list[str]:
    """The same of the run in a folder, by the run file that it keeps."""
    kept = read_provenance(root)
    return caveats(kept["run_file"]) if kept else []
