"""Scores by a judge: a language model that tells from an explanation which texts fit it, and which tokens."""

JUDGE_METHODS = {
    "detection": "stages.judge.items:DETECTION",
    "fuzzing": "stages.judge.items:FUZZING",
}
"""By name, as `judge.methods` has them: a `JudgeMethod`."""
