"""What a launch leaves in the `scratch` of the run's folder, `_launch/ID/`: the frozen run file, logs, and what was started.

Workers read the frozen run file, so that a job that waited for days runs what was launched, whatever became of the file since.
"""

import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.config.run_file import PROJECT
from pipeline.errors import UserError
from pipeline.execution.frozen_run_file import as_toml
from pipeline.storage.atomic_files import atomic_path
from pipeline.storage.claims import JOB, LOG, Owner, this_process
from pipeline.storage.stores import place, scratch


@dataclass(frozen=True)
class Launch:
    """One launch of a run."""

    folder: Path
    engine: str
    owner: Owner
    """The process that launched it."""
    jobs: Mapping[str, str] = field(default_factory=dict)
    """Numbers of the scheduler's jobs by stage."""

    @property
    def run_file(self) -> Path:
        """The frozen run file."""
        return self.folder / "run.toml"

    @property
    def logs(self) -> Path:
        """The folder of what workers print."""
        return self.folder / "logs"

    def with_jobs(self, jobs: Mapping[str, str]) -> "Launch":
        """The same with these jobs, also on disk."""
        launched = replace(self, jobs=dict(jobs))
        with atomic_path(self.folder / "launch.json") as temporary:
            values = {"engine": self.engine, "owner": asdict(self.owner), "jobs": launched.jobs}
            temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
        return launched

    def command(self, *arguments: str) -> list[str]:
        """The command line of a worker."""
        return [sys.executable, "-m", "pipeline", *arguments, "--config", str(self.run_file), "--rows-may-fail"]

    def environment(self, job: str, log: Path) -> dict[str, str]:
        """What a worker's environment has beside the launcher's own."""
        own = [str(PROJECT)] if (PROJECT / "pyproject.toml").is_file() else []  # else it is installed and found anyway
        paths = [*own, *filter(None, [os.environ.get("PYTHONPATH")])]
        return {JOB: job, LOG: str(log), "PYTHONPATH": os.pathsep.join(paths)}


def new_launch(config: RunConfig, engine: str) -> Launch:
    """Freeze a run file, and make the folder of a launch.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = scratch(config.root).absolute() / "_launch" / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    launch = Launch(folder, engine, this_process())
    with atomic_path(launch.run_file) as temporary:
        temporary.touch(mode=0o600)  # it may hold headers of requests
        temporary.write_text(frozen(config), encoding="utf-8")
    launch.logs.mkdir()
    return launch.with_jobs({})


def frozen(config: RunConfig) -> str:
    """A run file with every setting as it is now, and with paths that lead to the same places from anywhere."""
    here = {"folder": str(place(config.run.folder).absolute()), "paths_from": str(Path.cwd())}
    whole = config.model_copy(update={"run": config.run.model_copy(update=here)})
    told = "# Written when the run was launched. Workers read it; to change a setting, change your run file and launch again."
    return f"{told}\n\n{as_toml(whole.model_dump(mode='json'))}"


def launches(root: Path) -> list[Launch]:
    """The launches of a run, the newest first."""
    found = []
    for file in sorted(scratch(root).glob("_launch/*/launch.json"), reverse=True):
        try:
            values: Any = json.loads(file.read_text(encoding="utf-8"))
            found.append(Launch(file.parent, values["engine"], Owner(**values["owner"]), values["jobs"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}); remove its folder, once its jobs have ended") from None
    return found


def quoted(command: list[str]) -> str:
    """A command as a line of shell."""
    return shlex.join(command)
