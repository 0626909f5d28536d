"""The formats of other programs that a run can be written in; docs/exports.md says what each is for and what is lost in it."""

EXPORTS = {
    "openai": "pipeline.exports.openai:EXPORT",
    "neuronpedia": "pipeline.exports.neuronpedia:EXPORT",
    "circuit-tracer": "pipeline.exports.circuit_tracer:EXPORT",
    "delphi": "pipeline.exports.delphi:EXPORT",
    "dataset": "pipeline.exports.dataset:EXPORT",
}
"""By name: an `Export`."""
