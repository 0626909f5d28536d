"""The budget that the workers of a run share: each draws from one file what it may prune."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from pipeline.config import Budget
from pipeline.storage.shards import atomic_path

PORTIONS = 256
"""The budget is drawn in so many portions, so that the file is written seldom; a worker may leave part of one unspent."""


@dataclass(frozen=True)
class Amount:
    """Tokens, and what they cost (0 where the price is not known)."""

    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.cost - other.cost)

    def within(self, budget: Budget) -> bool:
        """Whether a budget allows it."""
        tokens, cost = budget.max_tokens_total, budget.max_cost
        return (tokens is None or self.tokens <= tokens) and (cost is None or self.cost <= cost)


class Pot:
    """What each worker may prune, in FOLDER/budget.json; a lock beside it makes the workers take turns.

    A worker's share is what it has spent, read from its replies, until it draws more; what it drew and did not prune goes
    back when it closes, or when any worker next starts and reads its replies.
    """

    def __init__(self, folder: Path, worker: str, budget: Budget, spent: Mapping[str, Amount]) -> None:
        """spent: by worker; those that are at work now may be missing."""
        self._file, self._lock = folder / "budget.json", folder / "budget.lock"
        self._worker, self._budget = worker, budget
        self.share = spent.get(worker, Amount())
        """What this worker may prune, with what it has spent."""
        folder.mkdir(parents=True, exist_ok=True)
        with self._shares() as shares:
            shares |= spent

    def draw(self, amount: Amount) -> bool:
        """Raise this worker's share by the amount, or by a portion if that is more; False where the budget forbids it."""
        tokens, cost = self._budget.max_tokens_total or 0, self._budget.max_cost or 0.0
        portion = Amount(max(amount.tokens, tokens // PORTIONS), max(amount.cost, cost / PORTIONS))
        with self._shares() as shares:
            taken = sum(shares.values(), Amount())
            for more in (portion, amount):
                if (taken + more).within(self._budget):
                    self.share = shares[self._worker] = self.share + more
                    return True
        return False

    def taken(self) -> Amount:
        """What all workers together have spent or drawn."""
        with self._shares() as shares:
            return sum(shares.values(), Amount())

    def close(self, spent: Amount) -> None:
        """Give back what was not spent."""
        with self._shares() as shares:
            self.share = shares[self._worker] = spent

    @contextmanager
    def _shares(self) -> Iterator[dict[str, Amount]]:
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                before = json.loads(self._file.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                before = {}
            shares = {worker: Amount(*values) for worker, values in before.items()}
            yield shares
            after = {worker: list(astuple(amount)) for worker, amount in shares.items()}
            if after != before:
                with atomic_path(self._file) as temporary:
                    temporary.write_text(json.dumps(after), encoding="utf-8")
