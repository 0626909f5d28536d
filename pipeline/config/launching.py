"""How a run is spread over processes and machines; nothing of it changes rows."""

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.config.section import Count, Positive, Section, Text


class Slurm(Section):
    """Arrays of a Slurm cluster; what is not given is left to the site."""

    apart: ClassVar[bool] = True
    workers: Positive = 4
    """Tasks of each array, each a worker; they share the stage's shards by claims."""
    at_a_time: Positive | None = None
    """Tasks of an array that run at a time at most; all unless given."""
    array_limit: Positive = 1000
    """Tasks of an array at most, where the site sets a limit; fewer tasks compute more shards each."""
    shards_per_task: Positive | None = None
    """A task ends after so many shards and queues again, where the site wants short jobs; all that it can get unless given."""
    partition: str = ""
    """As --partition of sbatch."""
    time: str = ""
    """As --time, such as "02:00:00": the limit of one task, which ends in good time and is queued again."""
    gpus: Count = 0
    """GPUs of a task, as --gpus-per-task."""
    cpus: Positive | None = None
    """Cores of a task, as --cpus-per-task."""
    memory: str = ""
    """Memory of a task, as --mem, such as "32G"."""
    account: str = ""
    """As --account."""
    setup: list[str] = []
    """Lines of shell before the worker starts, such as "module load cuda"."""
    extra: list[str] = []
    """Further options of sbatch, such as "--qos=low"."""
    seconds_to_finish: Positive = 120
    """A task that reaches its time limit is told so many seconds before: it finishes the shards in hand and is queued again."""


class Ray(Section):
    """Workers as tasks of a Ray cluster."""

    apart: ClassVar[bool] = True
    address: Text = "auto"
    """Of the cluster, unless RAY_ADDRESS says it; auto is the one that `ray start` has begun here."""
    workers: Positive = 4
    """Tasks, each a worker; they share the shards of all stages by claims."""
    cpus: Annotated[float, Field(ge=0)] = 1
    """Cores that a worker sets aside."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs that a worker sets aside."""
    resources: dict[str, float] = {}
    """Other resources that it sets aside, by the names that the cluster gives them."""
    retries: Count = 5
    """Times that a worker is started again, on another node, after its node died."""


class Launch(Section):
    """How `run --launch` spreads a run, and how workers tell that one of them died."""

    lease: Annotated[float, Field(gt=0)] = 90.0
    """Seconds without a sign of life after which another worker takes over a shard. More where the shared disk stalls for long."""
    workers: Positive | None = None
    """Processes of --launch local; unless given, one for each GPU, or where there is none, one for each `cores`."""
    cores: Positive = 4
    """Cores of a process of --launch local."""
    slurm: Slurm = Slurm()
    """Of --launch slurm."""
    ray: Ray = Ray()
    """Of --launch ray."""
