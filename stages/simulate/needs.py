"""What each simulator needs of an endpoint; simulators that are not listed work with any."""

from pipeline.errors import UserError
from pipeline.llm.engine import Capabilities, Need

NEEDS = {
    "all_at_once": Need(
        "prompt_numbers", "probabilities of the tokens of a prompt (prompt_logprobs or echo, and a tokenizer)"
    ),
    "one_at_a_time": Need("reply_numbers", "log-probabilities of the tokens of a reply (top_logprobs)"),
}
BEST_FIRST = ("all_at_once", "generated", "json", "one_at_a_time")
"""The simulators that ask a language model."""


def require(capabilities: Capabilities, simulator: str) -> None:
    """Stop a simulator that needs what the model's server does not do.

    Raises:
        UserError: it names simulators that would work.
    """
    need = NEEDS.get(simulator)
    if need is None or need.met(capabilities):
        return
    others = " or ".join(f'simulator = "{name}"' for name in working_simulators(capabilities))
    raise UserError(
        f'simulator = "{simulator}" needs {need.words}, which this endpoint does not give for this model; '
        f"write {others} instead, or use an endpoint that does, such as vLLM "
        "with the model's tokenizer in engine.tokenizer (`make doctor` shows what works)"
    )


def working_simulators(capabilities: Capabilities) -> list[str]:
    """The simulators by language model that would work, best first."""
    return [name for name in BEST_FIRST if name not in NEEDS or NEEDS[name].met(capabilities)]
