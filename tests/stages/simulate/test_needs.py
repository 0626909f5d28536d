"""What a simulator needs comes with it, and a missing capability is told with what would work."""

import pytest

from pipeline.errors import UserError
from pipeline.llm.engine import Capabilities
from stages.simulate.needs import require, working_simulators


def test_a_simulator_that_needs_what_is_missing_names_one_that_works() -> None:
    with pytest.raises(UserError, match=r'simulator = "generated" or simulator = "json"'):
        require(Capabilities(), "all_at_once")
    with pytest.raises(UserError, match=r'"all_at_once" needs.*simulator = "one_at_a_time"'):
        require(Capabilities(logprobs=20, reply_numbers=True), "all_at_once")
    for name in working_simulators(Capabilities()):
        require(Capabilities(), name)
    assert working_simulators(Capabilities(reply_numbers=True, prompt_numbers=True))[0] == "all_at_once"
