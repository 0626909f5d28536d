"""The `statistics` explainer: words and rules that carry a unit's activation, put into a sentence."""

from stages.explain.statistics.explainer import StatisticsExplainer

__all__ = ["StatisticsExplainer"]
