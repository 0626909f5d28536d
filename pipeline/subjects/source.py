"""The source of the activations that a run file asks for: the model, functions of texts and folders as one."""

from collections.abc import Mapping, Sequence

from pipeline.config import RunConfig
from pipeline.errors import UserError
from pipeline.storage.tables import Tables
from pipeline.subjects.activations import ActivationSource, ModuleUnits, Receive, TokenBatch
from pipeline.subjects.black_box import BlackBoxActivations
from pipeline.subjects.identity import BLACK_BOX, PRECOMPUTED, black_box, needs_model, precomputed_folder
from pipeline.subjects.load import load_subject, load_tokenizer
from pipeline.subjects.model_activations import ModelActivations
from pipeline.subjects.model_facts import check_modules
from pipeline.subjects.precomputed_activations import PrecomputedActivations, corpus_places
from pipeline.subjects.precomputed_files import activation_files, units_of_files
from pipeline.subjects.sites import find_sites
from pipeline.subjects.token_text import TokenTexts


class CombinedActivations:
    """Several sources as one: each runs on every batch."""

    def __init__(self, sources: Sequence[ActivationSource], modules: Sequence[str]) -> None:
        """modules: the order in which they are named; the sources have them all, each once."""
        self.sources = list(sources)
        units = {name: units for source in sources for name, units in source.modules.items()}
        self.modules: Mapping[str, ModuleUnits] = {name: units[name] for name in modules}

    def run(self, batch: TokenBatch, receive: Receive) -> None:
        for source in self.sources:
            source.run(batch, receive)


def open_source(config: RunConfig, modules: Sequence[str]) -> ActivationSource:
    """What runs over batches of tokens and gives the activations of some modules.

    The model is loaded only where one of them is part of it. Folders of activations need the finished corpus.

    Raises:
        UserError: the subject, or something that belongs to it, is not there.
    """
    _refuse_twice(modules)
    subject = config.subject
    parts = [name for name in modules if needs_model([name])]
    precomputed = {name: precomputed_folder(config, name) for name in modules if name.startswith(PRECOMPUTED)}
    sources: list[ActivationSource] = []
    if parts:
        base_model = load_subject(subject).model.base_model
        sources.append(ModelActivations(base_model, find_sites(base_model, parts, subject)))
    sources += [open_black_box(config, name) for name in modules if name.startswith(BLACK_BOX)]
    if precomputed:
        sources.append(PrecomputedActivations(precomputed, lambda: corpus_places(Tables(config.root))))
    return sources[0] if len(sources) == 1 else CombinedActivations(sources, modules)


def open_black_box(config: RunConfig, module: str) -> BlackBoxActivations:
    """The function of `black_box:NAME`, with the subject's tokenizer to make texts of tokens.

    Raises:
        UserError: the function cannot be used, or the tokenizer is not there.
    """
    tokenizer = load_tokenizer(config.subject.model, config.subject.trust_remote_code)
    return BlackBoxActivations(module, black_box(config, module), TokenTexts(tokenizer).whole)


def describe_modules(config: RunConfig) -> dict[str, ModuleUnits]:
    """The units of each module that a run file names, in its order; no weights are read and no function is called.

    Raises:
        UserError: there is no such module, or it is named twice.
    """
    subject = config.subject
    _refuse_twice(subject.modules)
    parts = [name for name in subject.modules if needs_model([name])]
    found = check_modules(subject.model, parts, subject.trust_remote_code, subject) if parts else {}
    for name in subject.modules:
        if name.startswith(PRECOMPUTED):
            found[name] = units_of_files(activation_files(precomputed_folder(config, name)))
        elif name.startswith(BLACK_BOX):
            found[name] = ModuleUnits(black_box(config, name).units)
    return {name: found[name] for name in subject.modules}


def check_sources(config: RunConfig) -> None:
    """Raises UserError where a module's function or files cannot be used, or the corpus is not that of the files."""
    describe_modules(config)
    for name in config.subject.modules:
        if name.startswith(BLACK_BOX):
            open_black_box(config, name)
        if name.startswith(PRECOMPUTED) and not config.corpus.source.startswith(PRECOMPUTED):
            raise UserError(
                f"corpus.source = {config.corpus.source!r}, but activations from files are there for their own sequences only; "
                f'write corpus.source = "{name}"'
            )


def _refuse_twice(modules: Sequence[str]) -> None:
    twice = sorted({name for name in modules if list(modules).count(name) > 1})
    if twice:
        raise UserError(f"subject.modules names {', '.join(twice)} more than once; name each module once")
