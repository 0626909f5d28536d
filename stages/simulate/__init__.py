"""Expected activations from explanations."""

SIMULATORS = {
    "word": "stages.simulate.word.word_simulator:METHOD",
    "all_at_once": "stages.simulate.read_numbers:ALL_AT_ONCE",
    "generated": "stages.simulate.written_numbers:GENERATED",
    "json": "stages.simulate.written_numbers:JSON",
    "one_at_a_time": "stages.simulate.read_numbers:ONE_AT_A_TIME",
}
"""By name, as `simulate.simulator` has it: a `Method` that makes a `Simulator`. Those by language model, the best first."""

BASELINES = {"lookup": "stages.simulate.lookup:LOOKUP_METHOD"}
"""Simulators that read a text of their own making, and no explanation."""
