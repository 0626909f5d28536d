"""The budget: what a request may take is set aside before it is sent, and settled by what it took."""

import asyncio
from typing import TYPE_CHECKING

from pipeline.config import Budget, LanguageModel
from pipeline.cost import price
from pipeline.errors import UserError
from pipeline.llm.endpoint.pot import Amount, Pot

if TYPE_CHECKING:
    from pipeline.llm.endpoint.replies import Replies


class Ledger:
    """Keeps a worker within the budget: `reserve`, send, `settle`.

    A kill at once forgets the requests that were in flight: they are not stored, and are asked and counted again.
    """

    def __init__(
        self,
        budget: Budget,
        price_in: float | None = None,
        price_out: float | None = None,
        pot: Pot | None = None,
    ) -> None:
        """
        Args:
            price_in: of a million tokens read; None where it is not known.
            price_out: of a million tokens written.
            pot: what the workers share; needed where the budget has a limit.
        """
        self._budget, self._price_in, self._price_out, self._pot = budget, price_in, price_out, pot
        assert pot is not None or not self.limited
        self._spent = pot.share if pot is not None else Amount()
        self._reserved = Amount()
        self._in_flight = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._over = ""

    @classmethod
    def of(cls, budget: Budget, config: LanguageModel, replies: "Replies") -> "Ledger":
        """For an engine, with what all workers have spent so far."""
        free = cls(Budget(), config.price_in, config.price_out)
        if budget.max_tokens_total is None and budget.max_cost is None:
            return free
        pot = Pot(
            replies.folder, replies.worker, budget, replies.spent(lambda read, written: free.cost(read, written) or 0.0)
        )
        return cls(budget, config.price_in, config.price_out, pot)

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._budget.max_tokens_total is not None or self._budget.max_cost is not None

    def cost(self, read: int, written: int) -> float | None:
        """Of tokens read and written; None where a price that counts is not known."""
        return price(read, written, self._price_in, self._price_out)

    async def reserve(self, read: int, written: int) -> Amount:
        """Set aside what a request takes at most; where that is too much, wait for others in flight to settle.

        Raises:
            UserError: it would pass the budget whatever those in flight take.
        """
        amount = Amount(read + written, self.cost(read, written) or 0.0)
        while self._over or not self._fits(amount):
            if not self._in_flight:
                # From now on nothing is sent: the end of the stage would cut it off.
                self._over = self._over or self._used_up(amount)
                raise UserError(self._over)
            settled = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        self._reserved += amount
        self._in_flight += 1
        return amount

    def settle(self, reserved: Amount, read: int, written: int) -> None:
        """Put what a request took in place of what was set aside for it."""
        self._reserved -= reserved
        self._in_flight -= 1
        self._spent += Amount(read + written, self.cost(read, written) or 0.0)
        waiting, self._waiting = self._waiting, []
        for settled in waiting:
            if not settled.done():
                settled.set_result(None)

    def close(self) -> None:
        """Leave to the other workers what is not spent."""
        if self._pot is not None:
            self._pot.close(self._spent)

    def _fits(self, amount: Amount) -> bool:
        if self._pot is None:
            return True
        share, wanted = self._pot.share, self._spent + self._reserved + amount
        missing = Amount(max(0, wanted.tokens - share.tokens), max(0.0, wanted.cost - share.cost))
        return missing == Amount() or self._pot.draw(missing)

    def _used_up(self, amount: Amount) -> str:
        assert self._pot is not None
        taken = self._pot.taken()
        tokens, cost = self._budget.max_tokens_total, self._budget.max_cost
        lines = []
        if tokens is not None:
            lines.append(
                f"{taken.tokens:,} tokens of budget.max_tokens_total = {tokens:,} are spent and the next request may take "
                f"{amount.tokens:,}"
            )
        if cost is not None:
            lines.append(
                f"{taken.cost:.4f} of budget.max_cost = {cost:g} is spent and the next request may cost {amount.cost:.4f}"
            )
        return f"the budget is used up: {'; '.join(lines)}; raise it and run the same command to go on"
