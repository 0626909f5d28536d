"""Expected activations from explanations."""

SIMULATORS = {
    "word": "stages.simulate.word.word_simulator:METHOD",
    "all_at_once": "stages.simulate.all_at_once:METHOD",
    "generated": "stages.simulate.generated:METHOD",
    "json": "stages.simulate.json_list:METHOD",
    "one_at_a_time": "stages.simulate.one_at_a_time:METHOD",
}
"""By name, as `simulate.simulator` has it: a `Method` that makes a `Simulator`. Those by language model, the best first."""

BASELINES = {"lookup": "stages.simulate.lookup:METHOD"}
"""Simulators that read a text of their own making, and no explanation."""
