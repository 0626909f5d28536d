"""Workers as tasks of Slurm arrays, one array a stage, each after the one before it.

The scripts are plain files in the launch's folder, `STAGE.sbatch`, that can be read, changed, and submitted by hand.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.execution.launch.frozen import Launch, launches, quoted
from pipeline.execution.progress import say
from pipeline.execution.survey import Stages, survey

SECONDS_TO_GIVE_BACK = 15
"""Before its time limit, a task that has not finished its shard gives it back."""
RESTARTS = 5
"""Times that a worker which was killed is queued again."""
SCRIPT = """\
#!/bin/bash
{options}

# A worker of the stage {stage}. The tasks of this array share its shards by claims, so any number of them will do.
export NEUROGLOSS_JOB="slurm ${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
export NEUROGLOSS_LOG={logs}/{stage}-"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}".log
export PYTHONPATH={path}
{setup}
told=1
again=0
ended=0
worker=
# The time limit is near: finish the shards in hand, or give them back when it gets late; then queue again.
trap 'told=1; again=1; kill -USR1 $worker; (sleep {patience}; kill -TERM $worker) &' USR1
# Preempted or cancelled: give the shards back at once. Slurm itself queues a preempted task again.
trap 'told=1; ended=1; kill -TERM $worker' TERM
{command} &
worker=$!
[ $ended = 0 ] || kill -TERM $worker # told before there was a worker
while [ $told = 1 ]; do told=0; wait $worker; code=$?; done # a signal cuts off the waiting
# 3: this worker has ended and work is left. Above 128: it was killed, say for its memory.
if [ $code = 3 ] || [ $again = 1 -a $code != 0 ] || [ $code -gt 128 -a "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
  [ $ended = 1 ] || {{ scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}" && sleep 60; }}
fi
exit $code
"""


def launch_on_slurm(launch: Launch, config: RunConfig, stages: Stages, names: Sequence[str]) -> int:
    """Write a script for each stage, submit them as a chain, and return.

    Raises:
        UserError: there is no Slurm here, or it refuses a job; what was submitted is cancelled then.
    """
    if not shutil.which("sbatch"):
        raise UserError("--launch slurm needs the command sbatch; launch from a machine of the cluster")
    if queue_of([job for earlier in launches(config.root) for job in earlier.jobs.values()]):
        say(
            "Jobs of an earlier launch are in the queue too; they share the work. To end them: python -m pipeline cancel"
        )
    found, jobs, after = survey(config, stages), dict[str, str](), ""
    limit = min(config.launch.slurm.array_limit, _site_limit())
    for name in names:
        tasks = min(config.launch.slurm.workers, limit, len(found[name].todo) if found[name].ready else limit)
        script = launch.folder / f"{name}.sbatch"
        script.write_text(script_of(launch, config, name, tasks), encoding="utf-8")
        try:
            jobs[name] = after = submit(script, after)
        except UserError:
            cancel_jobs(list(jobs.values()))
            raise
        launch = launch.with_jobs(jobs)
        say(f"{name}: job {after}, {tasks} tasks")
    say(
        f"Scripts and logs are in {launch.folder}. Look with: python -m pipeline status; end it with: python -m pipeline cancel"
    )
    return 0


def script_of(launch: Launch, config: RunConfig, stage: str, tasks: int) -> str:
    """The script of a stage's array."""
    slurm = config.launch.slurm
    command = launch.command("run", "--stage", stage)
    if slurm.shards_per_task:
        command += ["--at-most", str(slurm.shards_per_task)]
    return SCRIPT.format(
        options="\n".join(f"#SBATCH {option}" for option in _options(launch, config, stage, tasks)),
        stage=stage,
        logs=shlex.quote(str(launch.logs)),
        path=shlex.quote(launch.environment("", launch.logs)["PYTHONPATH"]),
        setup="\n".join(["", *slurm.setup, ""]),
        command=quoted(command),
        restarts=RESTARTS,
        patience=max(1, slurm.seconds_to_finish - SECONDS_TO_GIVE_BACK),
    )


def _options(launch: Launch, config: RunConfig, stage: str, tasks: int) -> list[str]:
    slurm = config.launch.slurm
    at_a_time = f"%{slurm.at_a_time}" if slurm.at_a_time else ""
    given = {
        "partition": slurm.partition,
        "time": slurm.time,
        "gpus-per-task": slurm.gpus,
        "cpus-per-task": slurm.cpus,
        "mem": slurm.memory,
        "account": slurm.account,
    }
    return [
        f"--job-name={config.run.name}-{stage}",
        f"--array=0-{tasks - 1}{at_a_time}",
        "--ntasks=1",
        f"--output={shlex.quote(f'{launch.logs}/{stage}-%A_%a.log')}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{slurm.seconds_to_finish}",
        "--kill-on-invalid-dep=yes",
        *(f"--{name}={value}" for name, value in given.items() if value),
        *slurm.extra,
    ]


def submit(script: Path, after: str) -> str:
    """Submit a script to run once another job has ended well; gives its number.

    Raises:
        UserError: Slurm refuses it.
    """
    dependency = [f"--dependency=afterok:{after}"] if after else []
    done = subprocess.run(
        ["sbatch", "--parsable", *dependency, str(script)],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise UserError(f"Slurm refuses {script}: {done.stderr.strip()}; see [launch.slurm] in the run file")
    return done.stdout.strip().split(";")[0]


def cancel_jobs(jobs: Sequence[str]) -> None:
    """End jobs, those that wait first."""
    if jobs:
        subprocess.run(["scancel", *reversed(jobs)], capture_output=True, check=False)  # noqa: S607


def queue_of(jobs: Sequence[str]) -> list[list[str]]:
    """What Slurm says of jobs that it has not forgotten: job, state, time, node or reason."""
    if not jobs or not shutil.which("squeue"):
        return []
    done = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i|%T|%M|%R", f"--jobs={','.join(jobs)}"],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 3]


def _site_limit() -> int:
    """Tasks that an array of this site may have."""
    shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)  # noqa: S607
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", shown.stdout, re.M)
    return max(1, int(match[1]) - 1) if match else 1000
