"""Scores on examples: whether texts fit an explanation, asked of a language model or found without one, against what the unit does."""

JUDGE_METHODS = {
    "detection": "stages.judge.yes_no:DETECTION",
    "fuzzing": "stages.judge.fuzzing:FUZZING",
    "intruder": "stages.judge.intruder:INTRUDER",
    "embedding": "stages.judge.embedding:EMBEDDING",
    "sensitivity": "stages.judge.sensitivity:RETRIEVED",
    "sensitivity_written": "stages.judge.sensitivity:WRITTEN",
    "paraphrases": "stages.judge.paraphrases:PARAPHRASES",
    "surprisal": "stages.judge.surprisal:SURPRISAL",
}
"""By name, as `judge.methods` has them: a `Method` that makes an `ExampleScorer` from the context of its stage."""
