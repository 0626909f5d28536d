"""What a model's endpoint can do, as the probe found it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from pipeline.llm.engine import Capabilities

LimitField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True)
class PromptLogprobs:
    """How an endpoint gives the log-probabilities of the tokens of a prompt, which is sent as token ids."""

    way: Literal["", "prompt_logprobs", "echo"] = ""
    """By vLLM's field `prompt_logprobs`; by `echo` with `logprobs`, as SGLang does; empty where neither works."""
    alternatives: int = 0
    """Tokens to ask for at each place of the prompt."""
    listed: int = 0
    """Tokens that were given for so many, at least."""
    token_ids: bool = False
    """Whether it names the tokens of its reply by their ids (vLLM's `return_tokens_as_token_ids`)."""
    spelling: tuple[tuple[int, str], ...] = ()
    """The text by which it names each token that numbers are written with."""


@dataclass(frozen=True)
class EndpointCapabilities:
    """What requests a model behind an endpoint understands; kept as JSON in the response cache."""

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
    other_models: tuple[str, ...] = ()
    """The models that /models lists, where this one is not among them."""
    reading: PromptLogprobs = field(default_factory=PromptLogprobs)

    def of_engine(self) -> Capabilities:
        """What an engine can do with them."""
        prompts = bool(self.reading.way)
        return Capabilities(
            logprobs=self.logprobs,
            reply_numbers=prompts or self.logprobs > 0,
            prompt_numbers=prompts,
            json_schema=self.json_schema,
            n=self.n,
            seed=self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """As a fact of the response cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "EndpointCapabilities":
        """Back from a fact; fields of another version are left out."""
        return _ADAPTER.validate_python(values)


_ADAPTER = TypeAdapter(EndpointCapabilities)
