"""What the probe found out about a model behind an endpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from pipeline.llm.engine import Capabilities

LimitField = Literal["max_tokens", "max_completion_tokens"]
PromptLogprobs = Literal["", "prompt_logprobs", "echo"]


@dataclass(frozen=True)
class PromptReading:
    """How an endpoint gives the log-probabilities of the tokens of a prompt of token ids."""

    way: PromptLogprobs = ""
    """By vLLM's field `prompt_logprobs`, by `echo` with `logprobs`; empty where neither works."""
    alternatives: int = 0
    """Tokens to ask for at each place of the prompt."""
    listed: int = 0
    """Tokens that were given for so many, at least."""
    token_ids: bool = False
    """Whether it names the tokens of its reply by their ids (vLLM's `return_tokens_as_token_ids`)."""
    max_tokens: int = 1
    """The smallest limit of reply tokens that it takes."""
    spelling: tuple[tuple[int, str], ...] = ()
    """The text by which it names each token that numbers are written with."""


@dataclass(frozen=True)
class Profile:
    """What requests a model behind an endpoint understands; kept as JSON in the reply cache."""

    chat: bool = True
    """Answers /chat/completions; else only /completions."""
    limit_field: LimitField = "max_tokens"
    """The field that limits the tokens of a reply."""
    temperature: bool = True
    stop: bool = True
    """Whether these fields are taken; models that reason refuse them."""
    logprobs: int = 0
    """Alternatives given for each token of a reply."""
    json_schema: bool = False
    n: bool = False
    seed: bool = False
    context: int | None = None
    """Tokens of prompt and reply together, as /models says; None where it does not."""
    reading: PromptReading = PromptReading()

    def capabilities(self) -> Capabilities:
        """What an engine can do with them."""
        passages = bool(self.reading.way)
        return Capabilities(
            logprobs=self.logprobs,
            reply_numbers=passages or self.logprobs > 0,
            prompt_numbers=passages,
            json_schema=self.json_schema,
            n=self.n,
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """As a fact of the reply cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Profile":
        """Back from a fact; fields of another version are left out."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        reading = dict(known.pop("reading", {}))
        reading["spelling"] = tuple((int(token), str(text)) for token, text in reading.get("spelling", ()))
        return cls(**known, reading=PromptReading(**reading))
