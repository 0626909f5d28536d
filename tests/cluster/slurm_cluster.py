"""Slurm on this machine alone: one controller and two node daemons, without systemd, cgroups and accounting, all in one folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldPort={port}
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=30
KillWait=5
MinJobAge=300
MaxArraySize=101
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no Slurm here; empty where there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons want root"
    if not all(map(_where, PROGRAMS)):
        subprocess.run(["apt-get", "update", "--quiet"], check=False, capture_output=True)
        install = ["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]
        done = subprocess.run(
            install, check=False, capture_output=True, text=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        )
        if not all(map(_where, PROGRAMS)):
            return f"slurm-wlm and munge cannot be installed: {done.stderr.strip()[-200:]}"
    return ""


def _where(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class SlurmCluster:
    """The daemons; `with` ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "SLURM_CONF": f"{folder}/slurm.conf",
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def __enter__(self) -> "SlurmCluster":
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        ports = dict(zip(("port", "first", "second"), _free_ports(3), strict=True))
        configuration = CONFIGURATION.format(folder=self.folder, host=socket.gethostname().split(".")[0], **ports)
        (self.folder / "slurm.conf").write_text(configuration, encoding="utf-8")
        self._start(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
            f"--pid-file={self.folder}/munge.pid", f"--log-file={self.folder}/munge.log", f"--seed-file={self.folder}/munge.seed",
        )  # fmt: skip
        _until(lambda: (self.folder / "munge.socket").exists(), "munged")
        self.start_controller()
        for node in NODES:
            self._start(node, "slurmd", "-D", "-N", node)
        _until(lambda: self.call("sinfo", "-h", "-o", "%T %D").strip() == "idle 2", "the nodes", self.logs)

    def __exit__(self, *_: object) -> None:
        if "slurmctld" in self._processes:
            self.call("scancel", "--user=root")
            time.sleep(1)
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def start_controller(self) -> None:
        """Start the controller; one that was killed carries on."""
        self._start("slurmctld", "slurmctld", "-D")

    def kill(self, name: str) -> None:
        """Kill a daemon by SIGKILL; with a node, all that runs on it."""
        process = self._processes[name]
        below = _below(process.pid) if name in NODES else []
        process.kill()
        for pid in [*below, *self._steps_of(name)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def call(self, *command: str) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            f"{file.name}: {file.read_text(errors='replace')[-600:]}" for file in sorted(self.folder.glob("*.log"))
        )

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [_where(program) or program, *arguments],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _steps_of(self, node: str) -> list[int]:
        """The processes of jobs on a node, which its daemon lets go of: they know the node by its name."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if (
                f"SLURMD_NODENAME={node}".encode() in environment
                and f"SLURM_CONF={self.folder}/slurm.conf".encode() in environment
            ):
                found.append(int(entry.name))
        return found


def _below(pid: int) -> list[int]:
    """The processes that a process started, and those that these did."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [*children, *(one for child in children for one in _below(child))]


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _until(there, what: str, logs=lambda: "", seconds: float = 30.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not start\n{logs()}")
        time.sleep(0.2)
