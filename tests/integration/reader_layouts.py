"""What the programs that read our exports require, taken from their code: fields, and which of them they cannot do without."""

from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat


class Exact(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True)


# neuron-explainer takes objects for dataclasses by their dataclass_name: (fields it cannot do without, all others)
NEURON_EXPLAINER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "NeuronId": ({"layer_index": int, "neuron_index": int}, {}),
    "ActivationRecord": ({"tokens": [str], "activations": [float]}, {}),
    "NeuronRecord": (
        {"neuron_id": "NeuronId"},
        {
            "random_sample": ["ActivationRecord"],
            "random_sample_by_quantile": [["ActivationRecord"]],
            "quantile_boundaries": [float],
            **dict.fromkeys(("mean", "variance", "skewness", "kurtosis"), float),
            "most_positive_activation_records": ["ActivationRecord"],
        },
    ),
    "SequenceSimulation": (
        {
            "tokens": [str],
            "expected_activations": [float],
            "activation_scale": str,
            "distribution_values": [[float]],
            "distribution_probabilities": [[float]],
        },
        {"uncalibrated_simulation": "SequenceSimulation"},
    ),
    "ScoredSequenceSimulation": (
        # the correlation is null where it is undefined, as in the files of OpenAI; their viewers do not show it
        {"simulation": "SequenceSimulation", "true_activations": [float], "ev_correlation_score": (float, None)},
        {"rsquared_score": float, "absolute_dev_explained_score": float},
    ),
    "ScoredSimulation": (
        {"scored_sequence_simulations": ["ScoredSequenceSimulation"]},
        dict.fromkeys(("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"), float),
    ),
    "ScoredExplanation": ({"explanation": str, "scored_simulation": "ScoredSimulation"}, {}),
    "NeuronSimulationResults": ({"neuron_id": "NeuronId", "scored_explanations": ["ScoredExplanation"]}, {}),
    "TokenLookupTableSummaryOfNeuron": ({"tokens": [str], "average_activations": [float]}, {}),
    "TokensAndWeights": ({"tokens": [str], "strengths": [float]}, {}),
    "WeightBasedSummaryOfNeuron": (
        {f"{side}_{sign}": "TokensAndWeights" for side in ("input", "output") for sign in ("positive", "negative")},
        {},
    ),
}  # fmt: skip


def check(value: Any, kind: Any, place: str = "") -> None:
    """Assert that a value from an OpenAI file is of a kind of NEURON_EXPLAINER."""
    if isinstance(kind, tuple):
        if value is not None:
            check(value, kind[0], place)
    elif isinstance(kind, list):
        assert isinstance(value, list), place
        for one in value:
            check(one, kind[0], f"{place}[]")
    elif isinstance(kind, str):
        needed, others = NEURON_EXPLAINER[kind]
        assert value["dataclass_name"] == kind, place
        assert set(needed) <= set(value) - {"dataclass_name"} <= {*needed, *others}, place
        for name, one in (needed | others).items():
            if name in value:
                check(value[name], one, f"{place}.{name}")
    else:
        assert isinstance(value, (int, float) if kind is float else kind), (place, value)


class Example(Exact):
    tokens_acts_list: list[FiniteFloat]
    train_token_ind: int
    is_repeated_datapoint: bool
    tokens: list[str]


class ExamplesQuantile(Exact):
    quantile_name: str
    examples: list[Example]


class CircuitTracerFeature(Exact):
    """`circuit_tracer.frontend.feature_models.Model`."""

    transcoder_id: str
    index: int
    examples_quantiles: list[ExamplesQuantile]
    top_logits: list[str]
    bottom_logits: list[str]
    act_min: FiniteFloat
    act_max: FiniteFloat
    quantile_values: list[FiniteFloat]
    histogram: list[FiniteFloat]
    activation_frequency: FiniteFloat


class DelphiAnswer(Exact):
    """`delphi.scorers.classifier.sample.ClassifierOutput`."""

    str_tokens: list[str]
    activations: list[FiniteFloat]
    distance: int
    activating: bool
    prediction: bool | None
    probability: FiniteFloat | None
    correct: bool | None


class AboutUnit(Exact):
    """What Neuronpedia's tables about units have in common."""

    modelId: str
    layer: str
    index: str


class WithId(AboutUnit):
    id: str


class Feature(AboutUnit):
    """Columns of Neuronpedia's table Neuron."""

    creatorId: str
    sourceSetName: str
    maxActApprox: FiniteFloat
    frac_nonzero: FiniteFloat
    freq_hist_data_bar_heights: list[FiniteFloat]
    freq_hist_data_bar_values: list[FiniteFloat]
    pos_str: list[str]
    pos_values: list[FiniteFloat]
    neg_str: list[str]
    neg_values: list[FiniteFloat]


class Activation(WithId):
    """Columns of Neuronpedia's table Activation."""

    creatorId: str
    tokens: list[str]
    values: list[FiniteFloat]
    maxValue: FiniteFloat
    maxValueTokenIndex: int
    minValue: FiniteFloat
    qualifyingTokenIndex: int
    binMin: FiniteFloat
    binMax: FiniteFloat
    binContains: FiniteFloat


class NeuronpediaExplanation(WithId):
    """Columns of Neuronpedia's table Explanation."""

    authorId: str
    description: str
    notes: str


NEURONPEDIA_REQUIRED = {
    "release": {"name", "description", "creatorName", "creatorId"},
    "model": {"id", "creatorId", "layers", "neuronsPerLayer", "owner"},
    "sourceset": {"modelId", "name", "description", "creatorName", "creatorId"},
    "source": {"id", "modelId", "setName", "creatorId"},
}
"""What a row cannot be made without."""
