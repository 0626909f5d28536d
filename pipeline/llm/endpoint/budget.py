"""The budget that the workers of a run share: no request is sent that could take the run past it.

What a request could take is set aside before it is sent, and settled by what it took. A worker draws what it sets aside
from a file that all workers share, in portions, so that the file is written seldom.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.config import Budget, LanguageModel
from pipeline.errors import UserError
from pipeline.llm.endpoint.response_cache import ResponseCache

PORTIONS = 256
"""The budget is drawn in so many portions; a worker may leave part of one unspent until it ends."""
LOCK_SECONDS = 60.0
"""Time for which a worker waits for the shared file."""
TOKENS_A_MESSAGE = 16
"""What a chat template adds to a message at most."""
TOKENS_A_PROMPT = 64
"""What a chat template adds to a conversation at most, such as a system text of its own."""
LIMITS, FORMS = ("max_tokens_total", "max_cost"), ("{:,.0f}", "{:,.4f}")
SHARES = "CREATE TABLE IF NOT EXISTS shares (worker TEXT PRIMARY KEY, tokens REAL, cost REAL)"
SET_SHARE = "INSERT OR REPLACE INTO shares VALUES (?, ?, ?)"
TAKEN = "SELECT coalesce(sum(tokens), 0), coalesce(sum(cost), 0.0) FROM shares"

Tokens = tuple[int, int]
"""Read and written."""
Amount = npt.NDArray[np.float64]
"""(2,) tokens, and what they cost (0 where the price is not known)."""


class SharedBudget:
    """Keeps a worker within the budget of the run: `reserve`, send, `settle`.

    A worker's share is what it has spent, by its response cache, until it draws more. What it drew and did not spend goes
    back when it closes, or after a kill when any worker next starts and reads the caches.
    """

    def __init__(self, limits: Budget, engine: LanguageModel, cache: ResponseCache) -> None:
        self._engine, self._file, self._worker = engine, cache.folder / "budget.db", cache.worker
        given = [limits.max_tokens_total, limits.max_cost]
        self._limits = np.array([np.inf if limit is None else limit for limit in given])
        self._portion = np.array([(limit or 0) / PORTIONS for limit in given])
        self._limited = given != [None, None]
        self._spent, self._reserved, self._share = np.zeros((3, 2))
        self._in_flight = 0
        self._settled = asyncio.Event()
        self._over = ""
        if self._limited:
            spent = {}
            for worker, (read, written, cost, *unpriced) in cache.totals().items():
                spent[worker] = np.array([read + written, cost + (engine.cost(*unpriced) or 0.0)])
            self._spent = self._share = spent[self._worker]
            with self._shares() as shares:
                shares.executemany(SET_SHARE, [(worker, *amount.tolist()) for worker, amount in spent.items()])

    async def reserve(self, most: Tokens) -> None:
        """Set aside what a request could take; where that is too much, wait for others in flight to settle.

        Raises:
            UserError: it would pass the budget whatever those in flight take.
        """
        if not self._limited:
            return
        amount = self._amount(most)
        while self._over or not self._fits(amount):
            if not self._in_flight:
                # From now on nothing is sent: the end of the stage would cut it off.
                self._over = self._over or self._used_up(amount)
                raise UserError(self._over)
            await self._settled.wait()
        self._reserved = self._reserved + amount
        self._in_flight += 1

    def settle(self, most: Tokens, took: Tokens) -> None:
        """Put what a request took in place of what was set aside for it."""
        if not self._limited:
            return
        self._reserved = self._reserved - self._amount(most)
        self._in_flight -= 1
        self._spent = self._spent + self._amount(took)
        self._settled.set()
        self._settled = asyncio.Event()

    def close(self) -> None:
        """Leave to the other workers what is not spent."""
        if self._limited:
            with self._shares() as shares:
                self._set_share(shares, self._spent)

    def _amount(self, tokens: Tokens) -> Amount:
        return np.array([sum(tokens), self._engine.cost(*tokens) or 0.0])

    def _fits(self, amount: Amount) -> bool:
        """Whether this worker's share covers it, after more was drawn if need be."""
        missing = np.maximum(self._spent + self._reserved + amount - self._share, 0)
        if not missing.any():
            return True
        with self._shares() as shares:
            taken = np.array(shares.execute(TAKEN).fetchone())
            for more in (np.maximum(missing, self._portion), missing):
                if (taken + more <= self._limits).all():
                    self._set_share(shares, self._share + more)
                    return True
        return False

    def _set_share(self, shares: sqlite3.Connection, share: Amount) -> None:
        shares.execute(SET_SHARE, (self._worker, *share.tolist()))
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
            taken = np.array(shares.execute(TAKEN).fetchone()) - self._share + self._spent
        lines = [
            f"{form.format(limit - used)} of budget.{name} = {form.format(limit)} is left, "
            f"and the next request could take {form.format(more)}"
            for name, form, limit, used, more in zip(LIMITS, FORMS, self._limits, taken, amount, strict=True)
            if np.isfinite(limit)
        ]
        return f"the budget is used up: {'; '.join(lines)}; raise it and run the same command to go on"


def most_tokens(body: Mapping[str, Any]) -> Tokens:
    """Tokens of a request's prompts and replies at most.

    A prompt has as many as its texts have bytes in UTF-8, and what a chat template adds. A JSON schema counts to the texts,
    for some servers show it to the model.
    """
    messages, prompts = body.get("messages", ()), body.get("prompt", [])
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
        prompts = [prompts]
    texts = [message["content"] for message in messages] + [prompt for prompt in prompts if isinstance(prompt, str)]
    texts += [body["response_format"]] if "response_format" in body else []
    texts = [text if isinstance(text, str) else json.dumps(text) for text in texts]
    read = TOKENS_A_PROMPT + TOKENS_A_MESSAGE * len(messages)
    read += sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    read += sum(len(prompt) for prompt in prompts if not isinstance(prompt, str))
    replies = int(body.get("n") or 1) * max(len(prompts), 1)
    return read, replies * int(body.get("max_completion_tokens") or body.get("max_tokens") or 0)
