"""A language model says what n-grams share."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.llm.engine import Message, Request
from pipeline.prompts import Prompt
from stages.asking import Asker
from stages.explain.explain_units import Candidate
from stages.explain.explanation_reply import SCHEMA, read_explanation
from stages.explain.question import Part, Question, ask
from stages.methods import Method
from stages.sasc.sasc_contracts import Kept

PROMPT = "sasc/summarise.v1"
MAX_TOKENS = 80
LEAST = 5
"""N-grams that a prompt has to show."""
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True)
class LanguageModelSummariser:
    """Shows the drawn n-grams and asks for their theme (Singh et al. 2023, section 3)."""

    asker: Asker
    prompt: Prompt

    async def explain(self, drawn: Sequence[str], kept: Kept, seed: int) -> Candidate:  # noqa: ARG002 - the contract
        """See `Summariser`; a prompt that does not fit the model's context loses the last n-grams."""
        as_json = (await self.asker.engine.capabilities()).json_schema
        system = self.prompt.part("system", as_json=as_json)
        ngrams = list(dict.fromkeys(map(shown, drawn)))
        question = Question(
            self.prompt.id,
            (Part("n-gram", ngrams, "ngrams", least=min(LEAST, len(ngrams)), step=5),),
            lambda ngrams: (
                Message("system", system),
                Message("user", self.prompt.part("ngrams", ngrams=ngrams, as_json=as_json)),
            ),
            lambda reply: read_explanation(reply, system),
            MAX_TOKENS,
            stop=("\nPhrases:",),
            schema=SCHEMA if as_json else None,
        )
        return (await ask(self.asker, question, 1, seed))[0]


def shown(ngram: str) -> str:
    """An n-gram on one line, without the space that tokens have in front."""
    return _BREAKS.sub(lambda found: repr(found[0])[1:-1], ngram.strip()) or repr(ngram)


def made_up(request: Request, number: int) -> str:
    """An explanation as a language model could give it, another one for each number."""
    text = f"words about life in towns and villages of kind {number}"
    return json.dumps({"explanation": text}) if request.schema else text


METHOD = Method(
    "a language model is shown the n-grams and says what they share (Singh et al. 2023)",
    lambda _, asker, prompts: LanguageModelSummariser(asker, prompts[0]),
    prompts=(PROMPT,),
    reply=made_up,
)
