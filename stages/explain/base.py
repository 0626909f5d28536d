"""What every explainer is: evidence in, candidate explanations out."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.evidence import Evidence


@dataclass(frozen=True)
class Candidate:
    """One hypothesis in words about a unit."""

    text: str
    prompt_id: str = ""
    """Name and version of the prompt that made it, such as `explain/token_activation.v1`; empty without a prompt."""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Explainer(Protocol):
    """Writes explanations from the `explain` split of a unit's exemplars."""

    name: str

    def explain(self, evidence: Evidence, seed: int) -> list[Candidate]:
        """Candidates, best guess first, never empty.

        Raises:
            ExplanationError: nothing can be said of this unit; the message becomes the row's `error`.
        """
        ...


class ExplanationError(Exception):
    """This unit could not be explained; the run goes on."""
