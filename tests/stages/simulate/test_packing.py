"""Several sequences in one request: what is right stays, what is wrong is asked again, nothing is made up."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace

import pytest

from pipeline.errors import UserError
from pipeline.llm.engine import Completion, EngineError, Message, PromptTooLong, Refused, Request
from pipeline.prompts import Prompt
from stages.asking import ATTEMPTS, Asker
from stages.settings import Simulate
from stages.simulate.packing import PackedSimulator, halves, packs
from stages.simulate.simulation import Simulation
from tests.stages.simulate.doubles import DoubleEngine, Write


class CommaSimulator(PackedSimulator):
    """Numbers by commas, one a text; ! is a fault."""

    def request(self, explanation: str, texts: Sequence[Sequence[str]], attempt: int = 0) -> Request:
        shown = ",".join("".join(text) for text in texts)
        return replace(self.written_request("", texts, 50, attempt), messages=(Message("user", shown),))

    @staticmethod
    def show(texts: Sequence[Sequence[str]]) -> list[str]:
        return ["".join(text) for text in texts]

    @staticmethod
    def answer(values: Sequence[Sequence[int]]) -> str:
        return str(values)

    def read(self, completion: Completion, texts: Sequence[Sequence[str]]) -> list[Simulation]:
        parts = completion.text.split(",")
        assert len(parts) == len(texts)
        return [
            Simulation.failed(f"fault {part}") if part.startswith("!") else Simulation.certain([float(part)])
            for part in parts
        ]


def simulated(engine: DoubleEngine, texts: Sequence[str], pack: int) -> Coroutine[object, object, list[Simulation]]:
    simulator = CommaSimulator(Simulate(pack=pack), Asker(engine), Prompt("simulate/generated.v1"))
    return simulator.simulate("", [[text] for text in texts])


def simulate(write: Write, texts: Sequence[str], pack: int) -> tuple[DoubleEngine, list[Simulation]]:
    engine = DoubleEngine(write)
    return engine, asyncio.run(simulated(engine, texts, pack))


def asked(engine: DoubleEngine) -> list[str]:
    return [request.messages[0].content for request in engine.requests]


def test_only_what_was_wrong_is_asked_again_with_another_draw() -> None:
    def write(request: Request) -> str:
        texts = request.messages[0].content.split(",")
        return ",".join("!" if text == "2" and request.attempt < 2 else text for text in texts)

    engine, results = simulate(write, ["1", "2", "3", "4"], 3)
    assert sorted(asked(engine)) == ["1,2,3", "2", "2", "4"]
    assert [float(result.expected[0]) for result in results if result.expected is not None] == [1, 2, 3, 4]
    again = [(r.attempt, r.seed, r.temperature) for r in engine.requests if "2" in r.messages[0].content]
    assert again == [(0, 0, 0.0), (1, 1, 0.7), (2, 2, 0.7)]


def test_a_refusal_is_asked_again_and_named_only_if_it_stays() -> None:
    refusal = Refused("refused: no", 40, 3)
    _, (result,) = simulate(lambda request: "5" if request.attempt else refusal, ["1"], 1)
    assert result.expected is not None
    assert (result.prompt_tokens, result.completion_tokens) == (140, 13)
    engine, (result,) = simulate(lambda request: refusal, ["1"], 1)
    assert (result.expected, result.error, len(engine.requests)) == (
        None,
        "refused: no, in the last of 3 replies",
        ATTEMPTS,
    )


def test_after_the_last_try_the_fault_is_named_and_no_value_given() -> None:
    engine, results = simulate(lambda request: f"!{request.attempt}", ["1"], 5)
    assert len(engine.requests) == ATTEMPTS
    assert results[0].expected is None
    assert results[0].coverage is None
    assert results[0].error == "fault !2, in the last of 3 replies"


def test_the_first_of_a_request_carries_its_tokens_and_repeated_requests_add_up() -> None:
    def write(request: Request) -> str:
        texts = request.messages[0].content.split(",")
        return ",".join("!" if text == "1" else text for text in texts)

    _, results = simulate(write, ["1", "2", "3"], 2)
    assert [(result.prompt_tokens, result.completion_tokens) for result in results] == [(300, 30), (0, 0), (100, 10)]


@pytest.mark.parametrize("error", [PromptTooLong("too long"), EngineError("refused")])
def test_a_request_that_fails_is_halved_so_that_one_text_harms_no_other(error: EngineError) -> None:
    def write(request: Request) -> str | Exception:
        return error if "5" in request.messages[0].content else request.messages[0].content

    engine, results = simulate(write, [str(number) for number in range(8)], 8)
    assert [result.error for result in results] == ["", "", "", "", "", str(error), "", ""]
    assert len(engine.requests) == 7
    assert results[5].expected is None


def test_what_stops_the_stage_is_raised() -> None:
    with pytest.raises(UserError, match="wrong key"):
        simulate(lambda _: UserError("wrong key"), ["1", "2"], 1)


def test_all_packs_are_asked_side_by_side() -> None:
    class Gate(DoubleEngine):
        """Lets nobody through before all have come."""

        inside = 0

        async def complete(self, request: Request) -> list[Completion]:
            self.inside += 1
            while self.inside < 4:
                await asyncio.sleep(0)
            return await super().complete(request)

    engine = Gate(lambda request: request.messages[0].content)
    results = asyncio.run(asyncio.wait_for(simulated(engine, [str(i) for i in range(8)], 2), 30))
    assert all(result.expected is not None for result in results)


def test_packs_cover_every_number_once() -> None:
    assert packs(7, 3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert packs(0, 3) == []
    assert halves([1, 2, 3]) == [[1], [2, 3]]
