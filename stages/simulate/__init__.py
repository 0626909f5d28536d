"""Expected activations from explanations."""

SIMULATORS = {
    "word": "stages.simulate.word.word_simulator:METHOD",
    "all_at_once": "stages.simulate.read_numbers:METHOD",
    "generated": "stages.simulate.written_numbers:METHOD",
    "json": "stages.simulate.written_numbers:METHOD",
    "one_at_a_time": "stages.simulate.read_numbers:METHOD",
}
"""By name, as `simulate.simulator` has it: a `Method` that makes a `Simulator`. Those by language model, the best first."""

BASELINES = {"lookup": "stages.simulate.simulator:METHOD"}
"""Simulators that read a text of their own making, and no explanation."""
