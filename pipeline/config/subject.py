"""The section of the run file about the model under study, and what it names: sparse coders, directions, black boxes."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Count, Device, Positive, Section, Text


class SparseCoder(Section):
    """A sparse autoencoder or transcoder, the units of `layers.3.sae:NAME`."""

    path: Text
    """Folder or file in the layout of SAELens, sparsify or Gemma Scope; `{layer}` stands for the number of the layer."""
    format: Literal["auto", "saelens", "sparsify", "gemma_scope"] = "auto"
    """auto looks at the files."""
    reads: Literal["auto", "residual", "residual_in", "attn_out", "mlp_in", "mlp_out", "mlp"] = "auto"
    """What is encoded: the residual stream after or before the layer, what attention or the MLP write (after a norm behind
    them), what the MLP reads, or the MLP's neurons; auto as the files say, `residual` where they do not."""


class Directions(Section):
    """A matrix of vectors, the units of `layers.3.directions:NAME`: their activation is the projection on them."""

    path: Text
    """A .safetensors, .npz or .npy file with a matrix (vectors, dimensions); `{layer}` stands for the number of the layer."""
    key: str | None = None
    """Name of the matrix in the file; not needed where the file holds one. `{layer}` is allowed."""
    reads: Literal["residual", "residual_in", "attn_out", "mlp_in", "mlp_out", "mlp"] = "residual"
    """What is projected."""
    normalise: bool = True
    """Divide each vector by its length."""


class BlackBox(Section):
    """A function of texts, the units of `black_box:NAME`."""

    call: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
    """package.module:function, a Python callable from a list of N texts to N numbers, or to an array (N, U)."""
    arguments: dict[str, Any] | None = None
    """Where given, `call` names a factory that is called with them once and returns the function."""
    units: Positive = 1
    """U, the numbers it gives for a text."""
    window: Positive = 3
    """The activation of a token is the value for the text of this many tokens up to and with it."""
    batch_size: Positive | None = None
    """Texts given to it at a time; unless said, as many as it asks for by an attribute of this name, or 1,024. A sentence embedder
    wastes part of small batches, as these hold texts of several lengths."""
    timeout: Positive = 600
    """Seconds that it may take for them."""
    version: str = ""
    """Change it where the function changes: it is part of what identifies the rows."""


class Subject(Section):
    model: Text
    """A hub id with an optional @revision, a local folder, a GGUF file, or package:NAME."""
    modules: Annotated[list[str], Field(min_length=1)]
    """Modules with units: layers.3.mlp (neurons), layers.3.attn (heads), layers.3.residual, layers.3.attn_out, layers.3.mlp_out
    (dimensions), layers.3.sae:NAME, layers.3.directions:NAME, black_box:NAME, precomputed:NAME. The layer may be a pattern:
    layers.*.mlp, layers.4-8.mlp, layers.last.mlp."""
    weights: Literal["trained", "random", "shuffled"] = "trained"
    """random and shuffled run a copy of the model without what it has learnt: initialised afresh by its own code, or with the entries of
    each weight tensor in another order, embeddings and norms too; see docs/scores.md."""
    weights_seed: Count = 0
    """Seed of these."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; auto is float32 on a CPU and the checkpoint's own type on a GPU."""
    device: Device = "auto"
    """Where the model runs; auto is CUDA where there is one, else the CPU."""
    device_map: bool = False
    """Spread a model that is larger than one device over all of them (accelerate)."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model."""
    paths: dict[Literal["layers", "mlp", "down_proj", "o_proj"], str] = {}
    """Where a model of an unknown structure keeps its parts: the list of layers in the base model, and in a layer the MLP,
    the projection from the MLP's neurons, and the one from the heads."""
    saes: dict[str, SparseCoder] = {}
    """Sparse autoencoders and transcoders by name."""
    directions: dict[str, Directions] = {}
    """Matrices of directions by name."""
    black_boxes: dict[str, BlackBox] = {}
    """Functions of texts by name."""
    precomputed: dict[str, str] = {}
    """Folders with activations that another program has made, by name; see outputs/README.md for the files."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_own(cls, values: Any) -> Any:
        if isinstance(values, dict) and "own" in values:
            raise ValueError(
                "subject.own is called subject.precomputed now; rename it, and own:NAME to precomputed:NAME"
            )
        return values

    @model_validator(mode="after")
    def _weights_matter(self) -> "Subject":
        if self.weights == "trained":
            return self
        if self.device_map:
            raise ValueError(f'weights = "{self.weights}" is for models on one device; write device_map = false')
        for name in self.modules:
            if ".sae:" in name:
                raise ValueError(
                    f'weights = "{self.weights}", but {name!r} has learnt from the trained model, so its latents mean nothing here; '
                    "leave it out"
                )
            if name.startswith(("black_box:", "precomputed:")):
                raise ValueError(
                    f'weights = "{self.weights}" does not change {name!r}, which is outside of the model; leave it out'
                )
        return self

    @field_validator("modules")
    @classmethod
    def _refuse_own_modules(cls, modules: list[str]) -> list[str]:
        for name in modules:
            refuse_own(name)
        return modules


def refuse_own(name: str) -> None:
    """Raises ValueError for the name that `precomputed:NAME` had in earlier versions."""
    if name.startswith("own:"):
        raise ValueError(f"{name!r} is called 'precomputed:{name.removeprefix('own:')}' now; write that")
