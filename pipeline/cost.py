"""What tokens cost."""

from pipeline.config import LanguageModel


def cost(engine: LanguageModel, prompt_tokens: int, completion_tokens: int) -> float | None:
    """Cost at an endpoint's prices, in the currency of `budget.max_cost`; None where a price that counts is unknown."""
    return price(prompt_tokens, completion_tokens, engine.price_in, engine.price_out)


def price(prompt_tokens: int, completion_tokens: int, price_in: float | None, price_out: float | None) -> float | None:
    """Of tokens read and written, at prices a million tokens; None where a price that counts is unknown."""
    parts = [(prompt_tokens, price_in), (completion_tokens, price_out)]
    if any(tokens and price is None for tokens, price in parts):
        return None
    return sum(tokens * price for tokens, price in parts if price is not None) / 1e6


def shown_cost(engine: LanguageModel | None, prompt_tokens: int, completion_tokens: int) -> str | None:
    """A cost as text: `unknown` without the prices; None, a dash in tables, for a model in this process."""
    if engine is None or engine.base_url is None:
        return None
    found = cost(engine, prompt_tokens, completion_tokens)
    return "unknown" if found is None else f"{found:,.4f}"
