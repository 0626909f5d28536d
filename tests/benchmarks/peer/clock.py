"""What a process spends on a task beyond the forward pass, measured in the same way on both sides. It needs torch alone."""

import functools
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

MB = 1e6
"""Bytes, of disk."""
BARE = 8
"""Batches of the bare forward pass, spread over all; their median stands for each."""


@dataclass
class Cost:
    """What one side took, in CPU seconds of all threads of its process, and in MB."""

    work: float = 0.0
    """From the loaded model to the last record."""
    inside: float = 0.0
    """Of that, inside the model's forward passes, without the hooks in them."""
    bare: float = 0.0
    """A bare forward pass over the same batches, without any hook."""
    hooks: float = 0.0
    """Of the work, inside hooks and the recorder."""
    peak_mb: float = 0.0
    """Memory of the process at its peak, from its start on."""
    beyond_mb: float = 0.0
    """By how much memory was higher at the peak of the work than before it."""
    passing_mb: float = 0.0
    """Disk of what is removed again before the end."""
    records: int = 0
    """Units that something was made for."""

    def print(self) -> None:
        """As the last line of the process."""
        print(json.dumps(asdict(self)))


def bytes_in(folder: Path) -> int:
    """Disk of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class _Spans:
    """CPU time inside the outermost of some nested calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.process_time() - started

        return timed


def bare_forward(run: Callable[[torch.Tensor], object], batches: Sequence[torch.Tensor], cost: Cost) -> None:
    """Measure a forward pass without hooks.

    Args:
        run: the model, called as it is called at work.
        batches: (B, T) token ids each.
    """
    seconds = []
    with torch.inference_mode():
        for batch in batches[:: max(len(batches) // BARE, 1)]:
            started = time.process_time()
            run(batch)
            seconds.append(time.process_time() - started)
    cost.bare = sorted(seconds)[len(seconds) // 2] * len(batches)


@contextmanager
def measured(kind: type[nn.Module], cost: Cost, recorder: type | None = None) -> Iterator[None]:
    """Measure what is done here; every hook that is registered on a torch module meanwhile is work beyond the forward pass.

    Args:
        kind: class of the model, whose `forward` is the forward pass.
        recorder: a class whose `add` and `finish` are such work too, as the model can call them without a hook.
    """
    forward, hooks = _Spans(), _Spans()
    methods = ("register_forward_hook", "register_forward_pre_hook")
    before = {name: getattr(nn.Module, name) for name in methods}
    recording = {name: getattr(recorder, name) for name in ("add", "finish")} if recorder else {}
    original = kind.forward
    kind.forward = forward.wrap(original)
    for name, register in before.items():
        setattr(nn.Module, name, _registering(register, hooks))
    for name, record in recording.items():
        setattr(recorder, name, hooks.wrap(record))
    resident = _begin_peak()
    started = time.process_time()
    try:
        yield
    finally:
        cost.work = time.process_time() - started
        cost.inside, cost.hooks = forward.seconds - hooks.seconds, hooks.seconds
        cost.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cost.beyond_mb = _status_mb("VmHWM") - resident
        kind.forward = original
        for name, register in before.items():
            setattr(nn.Module, name, register)
        for name, record in recording.items():
            setattr(recorder, name, record)


def _registering(register: Callable[..., Any], hooks: _Spans) -> Callable[..., Any]:
    def timed(module: nn.Module, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return register(module, hooks.wrap(hook), *args, **kwargs)

    return timed


def _begin_peak() -> float:
    """Have Linux forget this process's peak, which loading the model has set, and return its memory now, in MB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_mb("VmRSS")


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024
