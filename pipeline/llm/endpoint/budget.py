"""The budget that the workers of a run share: no request is sent that could take the run past it.

What a request could take is set aside before it is sent, and settled by what it took. A worker draws what it sets aside
from a file that all workers share, in portions, so that the file is written seldom.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.response_cache import ResponseCache

PORTIONS = 256
"""The budget is drawn in so many portions; a worker may leave part of one unspent until it ends."""
SHARES = "CREATE TABLE IF NOT EXISTS shares (worker TEXT PRIMARY KEY, tokens INTEGER, cost REAL)"
LOCK_SECONDS = 60.0

TOKENS_A_MESSAGE = 16
"""What a chat template adds to a message at most."""
TOKENS_A_PROMPT = 64
"""What a chat template adds to a conversation at most, such as a system text of its own."""


@dataclass(frozen=True)
class Amount:
    """Tokens, and what they cost (0 where the price is not known)."""

    tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens - other.tokens, self.cost - other.cost)


@dataclass(frozen=True)
class Reservation:
    """What one request could take."""

    most: tuple[int, int]
    """Tokens read and written."""
    amount: Amount


class SharedBudget:
    """Keeps a worker within the budget of the run: `reserve`, send, `settle`.

    A worker's share is what it has spent, by its response cache, until it draws more. What it drew and did not spend goes
    back when it closes, or after a kill when any worker next starts and reads the caches.
    """

    def __init__(self, limits: Budget, engine: LanguageModel, cache: ResponseCache) -> None:
        self._limits, self._engine = limits, engine
        self._limited = limits.max_tokens_total is not None or limits.max_cost is not None
        self._file, self._worker = cache.folder / "budget.db", cache.worker
        self._spent = self._reserved = self._share = Amount()
        self._in_flight = 0
        self._settled = asyncio.Event()
        self._over = ""
        if self._limited:
            spent = {worker: self._amount_of(*totals) for worker, totals in cache.totals().items()}
            self._spent = self._share = spent[self._worker]
            with self._shares() as shares:
                rows = [(worker, amount.tokens, amount.cost) for worker, amount in spent.items()]
                shares.executemany("INSERT OR REPLACE INTO shares VALUES (?, ?, ?)", rows)

    async def reserve(self, prompt_tokens: int, reply_tokens: int) -> Reservation:
        """Set aside what a request could take; where that is too much, wait for others in flight to settle.

        Raises:
            UserError: it would pass the budget whatever those in flight take.
        """
        amount = self._amount(prompt_tokens, reply_tokens)
        while self._over or not self._fits(amount):
            if not self._in_flight:
                # From now on nothing is sent: the end of the stage would cut it off.
                self._over = self._over or self._used_up(amount)
                raise UserError(self._over)
            await self._settled.wait()
        self._reserved += amount
        self._in_flight += 1
        return Reservation((prompt_tokens, reply_tokens), amount)

    def settle(self, reserved: Reservation, took: tuple[int, int]) -> None:
        """Put what a request took in place of what was set aside for it."""
        self._reserved -= reserved.amount
        self._in_flight -= 1
        self._spent += self._amount(*took)
        self._settled.set()
        self._settled = asyncio.Event()

    def close(self) -> None:
        """Leave to the other workers what is not spent."""
        if self._limited:
            with self._shares() as shares:
                self._set_share(shares, self._spent)

    def _amount(self, prompt_tokens: int, reply_tokens: int) -> Amount:
        return Amount(prompt_tokens + reply_tokens, self._engine.cost(prompt_tokens, reply_tokens) or 0.0)

    def _amount_of(self, read: int, written: int, cost: float, unpriced_read: int, unpriced_written: int) -> Amount:
        return Amount(read + written, cost + (self._engine.cost(unpriced_read, unpriced_written) or 0.0))

    def _fits(self, amount: Amount) -> bool:
        if not self._limited:
            return True
        wanted = self._spent + self._reserved + amount - self._share
        missing = Amount(max(0, wanted.tokens), max(0.0, wanted.cost))
        return missing == Amount() or self._draw(missing)

    def _draw(self, missing: Amount) -> bool:
        """Raise this worker's share by what is missing, or by a portion if that is more; False if the budget forbids it."""
        tokens, cost = self._limits.max_tokens_total or 0, self._limits.max_cost or 0.0
        portion = Amount(max(missing.tokens, tokens // PORTIONS), max(missing.cost, cost / PORTIONS))
        with self._shares() as shares:
            taken = _taken(shares)
            for more in (portion, missing):
                if self._allows(taken + more):
                    self._set_share(shares, self._share + more)
                    return True
        return False

    def _allows(self, amount: Amount) -> bool:
        tokens, cost = self._limits.max_tokens_total, self._limits.max_cost
        return (tokens is None or amount.tokens <= tokens) and (cost is None or amount.cost <= cost)

    def _set_share(self, shares: sqlite3.Connection, share: Amount) -> None:
        shares.execute("INSERT OR REPLACE INTO shares VALUES (?, ?, ?)", (self._worker, share.tokens, share.cost))
        self._share = share

    @contextmanager
    def _shares(self) -> Iterator[sqlite3.Connection]:
        """The shared file, while no other worker has it."""
        try:
            with closing(sqlite3.connect(self._file, timeout=LOCK_SECONDS, isolation_level=None)) as shares, shares:
                shares.execute("BEGIN IMMEDIATE")
                shares.execute(SHARES)
                yield shares
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{self._file}: {error}; see to free space, or delete the file while no worker of the run is at work"
            ) from None

    def _used_up(self, amount: Amount) -> str:
        with self._shares() as shares:
            spent = _taken(shares) - self._share + self._spent
        tokens, cost = self._limits.max_tokens_total, self._limits.max_cost
        lines = []
        if tokens is not None:
            left = f"{tokens - spent.tokens:,} tokens of budget.max_tokens_total = {tokens:,} are left"
            lines.append(f"{left}, and the next request could take {amount.tokens:,}")
        if cost is not None:
            left = f"{cost - spent.cost:.4f} of budget.max_cost = {cost:g} is left"
            lines.append(f"{left}, and the next request could cost {amount.cost:.4f}")
        return f"the budget is used up: {'; '.join(lines)}; raise it and run the same command to go on"


def _taken(shares: sqlite3.Connection) -> Amount:
    """What all workers together have spent or drawn."""
    return Amount(*shares.execute("SELECT coalesce(sum(tokens), 0), coalesce(sum(cost), 0.0) FROM shares").fetchone())


def prompt_bound(body: Mapping[str, Any]) -> int:
    """Tokens of a request's prompt at most: as many as its texts have bytes in UTF-8, and what a chat template adds.

    A JSON schema counts to the texts, for some servers show it to the model.
    """
    texts = [message["content"] for message in body.get("messages", ())]
    tokens = TOKENS_A_PROMPT + TOKENS_A_MESSAGE * len(texts)
    prompts = body.get("prompt", ())
    for prompt in [prompts] if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)) else prompts:
        if isinstance(prompt, str):
            texts.append(prompt)
        else:
            tokens += len(prompt)
    if "response_format" in body:
        texts.append(body["response_format"])
    texts = [text if isinstance(text, str) else json.dumps(text) for text in texts]
    return tokens + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
