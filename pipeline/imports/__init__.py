"""The formats of other programs that can be read into a run; docs/exports.md says what becomes of them."""

IMPORTS = {
    "openai": "pipeline.imports.neuron_records:IMPORT",
    "delphi": "pipeline.imports.delphi_cache:IMPORT",
    "neuronpedia": "pipeline.imports.neuronpedia_bundle:IMPORT",
}
"""By name: an `Import`."""
IMPORTED = "imported"
"""The corpus.source of the run file of an imported run."""
