"""Claims: of several workers that share a run, one at a time computes a shard.

A claim is a small file beside the run's tables, `_claims/STAGE/SHARD.GENERATION.json`. Its owner created it exclusively and writes it
anew every few seconds. Who sees it unchanged for the length of a lease, by a clock of its own, takes the shard over by creating the
next generation; no two clocks are compared. The highest generation is the owner. An owner that was passed over notices before it
publishes, and drops its work.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import TracebackType

from pipeline.storage.claim_files import ClaimStore

BEATS = 6
"""Signs of life in the length of a lease."""
LOG = "NEUROGLOSS_LOG"
"""Environment variable in which a launcher names the file that a worker's output goes to."""
JOB = "NEUROGLOSS_JOB"
"""And what the scheduler calls it."""
LAUNCHED = JOB in os.environ
"""Whether a launcher started this process."""
WORKERS = "_workers"
"""Claims of the names that workers go by."""


@dataclass(frozen=True)
class Owner:
    """What a claim says of who made it."""

    token: str
    """Random; nobody else has it."""
    host: str
    pid: int
    machine: str
    """This boot of the machine and its namespace of processes, where a process number means the same."""
    started: str
    """When the process started, as the machine counts: a number that is given out again is another process."""
    job: str
    """What the scheduler calls it; empty without one."""
    log: str
    """The file that its output goes to, where that is known."""
    since: float
    """Seconds since 1970, by the owner's clock; shown to people only."""
    beat: int = 0


@dataclass(frozen=True)
class Claim:
    """A claim that this process made."""

    name: str
    owner: Owner


class Claims:
    """The claims of this process in a run, kept alive by a thread until they are released."""

    def __init__(self, store: ClaimStore, lease: float) -> None:
        """lease: seconds without a sign of life after which an owner counts as dead."""
        self._store, self._lease = store, lease
        self._held: dict[str, Claim] = {}
        self._seen: dict[str, tuple[str, float]] = {}
        self._guard, self._ended = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Claims":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join()
        for claim in list(self._held.values()):
            self.release(claim)

    def take(self, stage: str, shard: str) -> Claim | None:
        """The claim of a shard; None where another worker has it.

        Raises:
            UserError: the disk is full or cannot be written.
        """
        now = time.monotonic()
        generations = self._generations(stage).get(shard, [])
        if generations and not self._is_dead(_name(stage, shard, generations[-1]), now):
            return None
        claim = Claim(_name(stage, shard, generations[-1] + 1 if generations else 1), this_process())
        if not self._store.create(claim.name, json.dumps(asdict(claim.owner))):
            return None
        if not self.holds(claim):
            self._store.delete(claim.name)
            return None
        for generation in generations:
            self._store.delete(_name(stage, shard, generation))
        with self._guard:
            self._held[claim.name] = claim
        self._keep_alive()
        return claim

    def holds(self, claim: Claim) -> bool:
        """Whether it is still this process's own: its file is as it was made, and nobody created a higher generation."""
        owner = _owner(self._store.read(claim.name))
        if owner is None or owner.token != claim.owner.token:
            return False
        stage, shard, generation = _parts(claim.name)
        return max(self._generations(stage).get(shard, [generation])) == generation

    def release(self, claim: Claim) -> None:
        """Give a claim back. Where the disk does not let it, others wait for the length of a lease."""
        with self._guard:
            self._held.pop(claim.name, None)
        with contextlib.suppress(OSError):
            owner = _owner(self._store.read(claim.name))
            if owner is not None and owner.token == claim.owner.token:
                self._store.delete(claim.name)

    def held(self, stage: str) -> dict[str, Owner | None]:
        """By shard, who is at work on it and alive, as far as it can be told; None where the claim cannot be understood."""
        now = time.monotonic()
        found = {}
        for shard, generations in self._generations(stage).items():
            name = _name(stage, shard, generations[-1])
            if not self._is_dead(name, now) and (text := self._store.read(name)) is not None:
                found[shard] = _owner(text)
        return found

    def _generations(self, stage: str) -> dict[str, list[int]]:
        """The generations of each shard that is claimed, the owner's last."""
        found: dict[str, list[int]] = {}
        for name in self._store.names(stage):
            try:
                _, shard, generation = _parts(name)
            except ValueError:  # no claim
                continue
            found.setdefault(shard, []).append(generation)
        return {shard: sorted(generations) for shard, generations in found.items()}

    def _is_dead(self, name: str, now: float) -> bool:
        """Whether its owner is gone, or gave no sign of life for a lease. now: a time before the claim is read."""
        text = self._store.read(name)
        if text is None:  # it was released this moment, perhaps to be made again
            return False
        if (owner := _owner(text)) and not is_alive(owner):
            return True
        seen = self._seen.get(name)
        if seen is None or seen[0] != text:
            self._seen[name] = (text, now)
            return False
        return now - seen[1] > self._lease

    def _keep_alive(self) -> None:
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
                self._thread.start()

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(self._lease / BEATS):
            beat += 1
            for claim in list(self._held.values()):
                try:
                    if self.holds(claim):
                        with self._guard:
                            if claim.name in self._held:  # not released in the meantime
                                self._store.replace(claim.name, json.dumps(asdict(replace(claim.owner, beat=beat))))
                except OSError:  # the next beat may do better, and a claim is checked before anything is published
                    continue


def _name(stage: str, shard: str, generation: int) -> str:
    return f"{stage}/{shard}.{generation}.json"


def _parts(name: str) -> tuple[str, str, int]:
    """Stage, shard and generation of a claim; ValueError where it is none."""
    stage, _, file = name.rpartition("/")
    shard, generation, _ = file.rsplit(".", 2)
    return stage, shard, int(generation)


def _owner(text: str | None) -> Owner | None:
    try:
        return None if text is None else Owner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def this_process() -> Owner:
    """This process as a new owner."""
    return Owner(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        started=_started(os.getpid()) or "",
        job=os.environ.get(JOB, ""),
        log=os.environ.get(LOG, ""),
        since=time.time(),
    )


def is_alive(owner: Owner) -> bool:
    """Whether a process is there, as far as can be seen: it is taken for alive on another machine."""
    return owner.machine != _machine() or _started(owner.pid) == owner.started


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine started, in the machine's own count; None where there is no such process."""
    try:
        state, *numbers = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return None if state in "ZX" else numbers[18]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:  # no Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""
