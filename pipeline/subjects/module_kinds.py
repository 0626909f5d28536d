"""Kinds of modules: how they are named, what the run file says of them, and which file knows their units.

A new kind is a file and a line of KINDS. What the file offers is said in `activation_sources.LayerKind`, for kinds within the layers
of the model, and in `OtherKind`.

Imports no torch, as fingerprints are worked out for `status` and `query` too.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pipeline.config import RunConfig, Subject
from pipeline.errors import UserError, nearest
from pipeline.subjects.activations import ActivationSource, ModuleUnits
from pipeline.subjects.identity import coder_identity, file_identity, folder_identity, function_identity
from pipeline.subjects.loading.model_source import layer_count

Identity = Callable[[str, Any, int], dict[str, Any]]
"""From the setting that describes an entry (for messages), the entry, and the number of the layer: whatever can change the
activations of its units."""


class OtherKind(Protocol):
    """What the file of a kind of module outside of the layers offers; all raise UserError where the module cannot be used.

    Of a kind that can be asked about any text it also offers what `text_functions.TextKind` says.
    """

    def units_of(self, config: RunConfig, module: str) -> ModuleUnits:
        """The units of a module, without calling or loading anything that is costly."""
        ...

    def open_sources(self, config: RunConfig, modules: Sequence[str]) -> Iterable[ActivationSource]:
        """Sources that give the activations of the modules, each module in one of them."""
        ...

    def check(self, config: RunConfig, module: str) -> None:
        """Whether the module can be recorded."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of module."""

    name: str
    """As in the names of its modules, `layers.3.NAME`; or `NAME:ENTRY` outside of the layers."""
    file: str
    """The Python module that knows its units, imported when they are wanted."""
    section: str = ""
    """Where it has entries, the part of [subject] that describes them; its modules are named `layers.3.NAME:ENTRY`."""
    identity: Identity | None = None
    """Of an entry."""
    in_layers: bool = True
    """Whether its units are in the layers of the model."""
    any_text: bool = True
    """Whether its units can be asked about any text."""
    moves: bool = False
    """Whether units move something from one position to another, as attention heads do."""

    @property
    def form(self) -> str:
        """As users write it behind the layer: sae:NAME."""
        return f"{self.name}:NAME" if self.section else self.name

    def outside(self) -> OtherKind:
        """The file of a kind outside of the layers."""
        return cast(OtherKind, import_module(self.file))


KINDS = (
    Kind("mlp", "pipeline.subjects.kinds.neurons"),
    Kind("attn", "pipeline.subjects.kinds.heads", moves=True),
    Kind("residual", "pipeline.subjects.kinds.directions"),
    Kind("attn_out", "pipeline.subjects.kinds.directions"),
    Kind("mlp_out", "pipeline.subjects.kinds.directions"),
    Kind("sae", "pipeline.subjects.saes.latents", "saes", coder_identity),
    Kind("directions", "pipeline.subjects.kinds.directions", "directions", file_identity),
    Kind("black_box", "pipeline.subjects.kinds.black_box", "black_boxes", function_identity, False),
    Kind(
        "precomputed",
        "pipeline.subjects.kinds.precomputed_activations",
        "precomputed",
        folder_identity,
        False,
        any_text=False,
    ),
)
WITHIN = {kind.name: kind for kind in KINDS if kind.in_layers}
OTHERS = {kind.name: kind for kind in KINDS if not kind.in_layers}
BLACK_BOX = "black_box:"
PRECOMPUTED = "precomputed:"

MODULE = re.compile(r"layers\.(?P<layer>\d+)\.(?P<kind>[a-z_]+)(?P<entry>:.+)?")
PATTERN = re.compile(r"layers\.(?P<layers>\*|last|(?P<first>\d+)-(?P<last>\d+))\.(?P<rest>.+)")


@dataclass(frozen=True)
class Module:
    """What the name of a module says."""

    name: str
    kind: Kind
    layer: int = 0
    entry: str = ""

    def settings(self, subject: Subject | None) -> Any:
        """The entry of the run file that it names; None for a kind without entries. Raises UserError: there is none of that name."""
        if not self.kind.section:
            return None
        known: Mapping[str, Any] = getattr(subject, self.kind.section) if subject else {}
        if self.entry in known:
            return known[self.entry]
        section = f"subject.{self.kind.section}"
        have = nearest(self.entry, sorted(known)) if known else f"the run file has no [{section}]"
        raise UserError(f"{self.name!r} names {self.entry!r}, which {section} does not describe; {have}")


def parse_module(name: str, layers: int | None = None) -> Module:
    """What a module's name says.

    Args:
        layers: layers of the model, where they are known.

    Raises:
        UserError: there is no such kind of module, or no such layer.
    """
    prefix, colon, entry = name.partition(":")
    if prefix in OTHERS and colon:
        return Module(name, OTHERS[prefix], entry=entry)
    match = MODULE.fullmatch(name)
    kind = WITHIN.get(match["kind"]) if match else None
    if match is None or kind is None or bool(kind.section) != bool(match["entry"]):
        every = "layers.0.mlp" if layers is None else f"layers.0.mlp to layers.{layers - 1}.mlp"
        within = ", ".join(kind.form for kind in WITHIN.values() if kind.name != "mlp")
        raise UserError(
            f"subject.modules: {name!r} is not a kind of module that can be recorded; allowed: {every}, and with another kind in "
            f"the place of mlp: {within}; {'; '.join(kind.form for kind in OTHERS.values())}"
        )
    layer, rest = int(match["layer"]), name.split(".", 2)[2]
    if layers is not None and layer >= layers:
        raise UserError(
            f"subject.modules: {name!r} does not exist, because the model has {layers} layers; "
            f"allowed: layers.0.{rest} to layers.{layers - 1}.{rest}"
        )
    if name != f"layers.{layer}.{rest}":
        raise UserError(f"subject.modules: write layers.{layer}.{rest} instead of {name!r}")
    return Module(name, kind, layer, (match["entry"] or "")[1:])


def kind_of(name: str) -> Kind:
    """The kind of a module; raises UserError where there is no such kind."""
    return parse_module(name).kind


def needs_model(modules: Iterable[str]) -> bool:
    """Whether any of the modules is within the layers of the subject's model."""
    return any(name.partition(":")[0] not in OTHERS for name in modules)


def modules_of(config: RunConfig) -> list[str]:
    """The modules of a run file in its order, with those that its patterns stand for: `layers.*.mlp`, `layers.4-8.attn`,
    `layers.last.mlp`.

    The number of layers is read from the model's configuration, and only where there is a pattern. `layers.*.sae:NAME` and
    `layers.*.directions:NAME` are the layers that there is a file for.

    Raises:
        UserError: a pattern stands for nothing, or a module is named twice.
    """
    found = [name for pattern in config.subject.modules for name in expand(pattern, config.subject)]
    refuse_twice(found)
    return found


def expand(pattern: str, subject: Subject) -> list[str]:
    """The modules that a pattern stands for; a name that is none stands for itself. Raises UserError: it stands for nothing."""
    match = PATTERN.fullmatch(pattern)
    if match is None:
        return [pattern]
    count, rest = layer_count(subject.model), match["rest"]
    first, last = {"*": (0, count - 1), "last": (count - 1, count - 1)}.get(
        match["layers"], (int(match["first"] or 0), int(match["last"] or 0))
    )
    if not first <= last < count:
        raise UserError(
            f"{pattern!r} stands for no module, because the model has the layers 0 to {count - 1}; "
            f"allowed: layers.0.{rest} to layers.{count - 1}.{rest}, layers.*.{rest}, layers.last.{rest}"
        )
    names = [f"layers.{layer}.{rest}" for layer in range(first, last + 1)]
    return _with_files(pattern, names, subject) if match["layers"] == "*" else names


def _with_files(pattern: str, names: list[str], subject: Subject) -> list[str]:
    """Those modules that there is a file for, where they are read from files."""
    path = getattr(parse_module(names[0]).settings(subject), "path", None)
    if path is None:
        return names
    if "{layer}" not in path:
        raise UserError(
            f"{pattern!r} names every layer, but path = {path!r} is that of one; write {{layer}} for the number in the path"
        )
    paths = (Path(path.replace("{layer}", str(layer))).expanduser() for layer in range(len(names)))
    found = [name for name, file in zip(names, paths, strict=True) if file.exists()]
    if not found:
        raise UserError(f"{pattern!r} stands for no module: there is no file {path!r} for a layer; correct the path")
    return found


def listed_units(config: RunConfig, wanted: Mapping[str, Sequence[int]], setting: str) -> dict[str, list[int]]:
    """Indices by module, rising, from lists by module or by pattern; those of several patterns together.

    Raises:
        UserError: a name or a pattern fits none of the run's modules; the message says which `setting` `wanted` is of.
    """
    modules = modules_of(config)
    found: dict[str, set[int]] = {}
    for pattern, indices in wanted.items():
        meant = set(expand(pattern, config.subject)) & set(modules)
        if not meant:
            raise UserError(f"{setting} names {pattern!r}; subject.modules are {', '.join(modules)}")
        for name in meant:
            found.setdefault(name, set()).update(indices)
    return {name: sorted(found[name]) for name in modules if name in found}


def precomputed_folder(config: RunConfig, name: str) -> Path:
    """The folder that `precomputed:NAME` stands for; raises UserError where the run file names none."""
    return Path(parse_module(name).settings(config.subject)).expanduser()


def refuse_twice(modules: Sequence[str]) -> None:
    """Raises UserError where a module is named more than once."""
    twice = sorted({name for name in modules if list(modules).count(name) > 1})
    if twice:
        raise UserError(f"subject.modules names {', '.join(twice)} more than once; name each module once")


def source_identities(config: RunConfig) -> dict[str, Any]:
    """For each module that is not read from the model's own weights alone: whatever can change its activations.

    Only what a module names is looked at, so that a further entry in the run file changes nothing. Where files lie makes no
    difference, but for sparse coders whose folders tell what they read. Hashes of files are remembered, so that only the first
    call reads whole ones.

    Raises:
        UserError: a module names something that the run file does not describe, or that is not there.
    """
    return {name: module_identity(config, name) for name in modules_of(config) if parse_module(name).kind.identity}


def module_identity(config: RunConfig, name: str) -> dict[str, Any]:
    """The same of one module; nothing for one that is read from the model's own weights."""
    module = parse_module(name)
    if module.kind.identity is None:
        return {}
    place = f"subject.{module.kind.section}.{module.entry}"
    return module.kind.identity(place, module.settings(config.subject), module.layer)
