"""What every explainer is: evidence in, candidate explanations out."""

from dataclasses import dataclass
from typing import Protocol

from stages.evidence import Evidence


@dataclass(frozen=True)
class Candidate:
    """One hypothesis in words about a unit."""

    text: str
    prompt_id: str = ""
    """Name and version of the prompt that made it, such as `explain/token_activation.v1`; empty without a prompt."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: str = ""
    """What the prompt had to leave out to fit the model's context, in words."""
    truncated: bool = False
    """Whether the token limit cut the explanation off."""


class Explainer(Protocol):
    """Writes explanations from the `explain` split of a unit's exemplars."""

    async def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Candidates, best guess first, never empty.

        Raises:
            ExplanationError: nothing can be said of this unit; the message becomes the row's `error`.
        """
        ...


class ExplanationError(Exception):
    """This unit could not be explained; the run goes on."""

    def __init__(self, message: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """prompt_tokens, completion_tokens: what was spent on the unit all the same."""
        super().__init__(message)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens
