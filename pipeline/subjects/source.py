"""The source of the activations that a run file asks for."""

from collections.abc import Sequence

from pipeline.config import RunConfig
from pipeline.subjects.activations import ActivationSource
from pipeline.subjects.load import load_language_model
from pipeline.subjects.model_activations import ModelActivations
from pipeline.subjects.sites import find_sites


def open_source(config: RunConfig, modules: Sequence[str]) -> ActivationSource:
    """What runs over batches of tokens and gives the activations of some modules.

    Raises:
        UserError: the subject, or something that belongs to it, is not there.
    """
    subject = config.subject
    loaded = load_language_model(
        subject.model, subject.dtype, subject.device, subject.trust_remote_code, subject.device_map
    )
    return ModelActivations(loaded.model.base_model, find_sites(loaded.model.base_model, modules, subject))
