"""Results of Delphi: the latents that it has explained, with sequences from its cache of activations.

    latents/HOOK/0_4095.safetensors          locations (M, 3): row, position, latent less the first of the file; activations (M,);
                                             tokens (N, T)
    latents/HOOK/config.json                 names the model, whose tokenizer is needed
    explanations/HOOK_latent7.txt            an explanation, a JSON string

Rows are cut into windows. The windows with the largest activations are `top`; windows at even distances are `random`. Which ones Delphi's
explainer has seen is not kept anywhere: it may have seen any of the `top` ones.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.imports.imported_run import Import, ImportedSequence, ImportedUnit

WINDOW = 64
"""Tokens of a window, where the rows of the cache are a multiple of that; else windows are whole rows."""
TOP = 40
RANDOM = 30
"""Windows kept for each latent; a part of them is scored on, see `imported_run.DEALT`."""
NAME = re.compile(r"(?P<hook>.+)_latent(?P<index>\d+)")
HOOK = re.compile(r"(?:.*\.)?(?:layers?|h)\.(?P<layer>\d+)(?:\.(?P<rest>.+))?")
UNPARSED = "Explanation could not be parsed."
"""What Delphi writes for an explanation that it could not read."""

Ints = npt.NDArray[np.int64]


def read(folder: Path) -> Iterator[ImportedUnit]:
    """See `Import`."""
    found: dict[str, dict[int, str]] = {}
    for path in sorted((folder / "explanations").glob("*.txt")):
        match, text = NAME.fullmatch(path.stem), _json(path)
        if match and text != UNPARSED:
            found.setdefault(match["hook"], {})[int(match["index"])] = str(text)
    if not found:
        raise UserError(
            f"{folder} has no explanations/HOOK_latentN.txt; give a folder of results, with explanations and latents"
        )
    for hook in sorted(found):
        yield from _units(folder / "latents" / hook, found[hook])


def _units(cache: Path, texts: dict[int, str]) -> Iterator[ImportedUnit]:
    from pipeline.subjects.loading.model_loading import load_tokenizer
    from pipeline.subjects.vocabulary import TokenTexts

    module, files = module_of(cache.name), sorted(cache.glob("*_*.safetensors"), key=_range)
    if not files or not (cache / "config.json").is_file():
        raise UserError(
            f"{cache} holds no config.json or no LOW_HIGH.safetensors, which {cache.name} was explained from; copy them"
        )
    tokens = TokenTexts(load_tokenizer(_json(cache / "config.json")["model_name"]))
    for path in files:
        first, last = _range(path)
        wanted = [index for index in sorted(texts) if first <= index <= last]
        if wanted:
            part = _CachePart(path, tokens)
            for index in wanted:
                yield ImportedUnit(module, index, part.sequences(index - first), [texts[index]])


def module_of(hook: str) -> str:
    """The module that a place in a model stands for, such as layers.5.mlp. Raises UserError: it names no layer."""
    match = HOOK.fullmatch(hook)
    if match is None:
        raise UserError(f"{hook!r} names no layer, as layers.5.mlp does; rename it in latents/ and explanations/")
    return f"layers.{int(match['layer'])}.sae:{match['rest'] or 'residual'}"


class _CachePart:
    """One file of a cache: N rows of T tokens, and where some latents are active in them."""

    def __init__(self, path: Path, texts: Any) -> None:
        """Raises UserError: the file is not of Delphi's layout."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            locations, values = arrays["locations"].astype(np.int64), arrays["activations"].astype(np.float64)
            self._ids: Ints = arrays["tokens"].astype(np.int64)
            if (locations[:, :2] >= self._ids.shape).any() or len(locations) != len(values):
                raise ValueError(f"locations outside of {self._ids.shape}, or not as many as activations")
        except (SafetensorError, OSError, KeyError, ValueError, IndexError) as error:
            raise UserError(
                f"{path} is no part of a cache of Delphi ({type(error).__name__}: {error}); it must hold tokens too (save_tokens=True)"
            ) from None
        order = np.argsort(locations[:, 2], kind="stable")
        self._latents, self._values = locations[order, 2], values[order]
        self._places = locations[order, 0] * self._ids.shape[1] + locations[order, 1]
        self._width = WINDOW if self._ids.shape[1] % WINDOW == 0 else self._ids.shape[1]
        self._texts = texts

    def sequences(self, latent: int) -> list[ImportedSequence]:
        """The windows kept for a latent, counted from the first of the file on."""
        own = slice(*np.searchsorted(self._latents, [latent, latent + 1]).tolist())
        windows, columns = np.divmod(self._places[own], self._width)
        active, which = np.unique(windows, return_inverse=True)
        peaks = np.zeros(len(active))
        np.maximum.at(peaks, which, self._values[own])
        top = active[np.argsort(-peaks, kind="stable")[:TOP]]
        total = self._ids.size // self._width
        spread = np.linspace(0, total - 1, min(RANDOM, total)).astype(np.int64)
        bands = [("top", window) for window in top.tolist()] + [("random", window) for window in spread.tolist()]
        dense = {window: np.zeros(self._width) for _, window in bands}
        for window, column, value in zip(windows.tolist(), columns.tolist(), self._values[own].tolist(), strict=True):
            if window in dense:
                dense[window][column] = value
        return [ImportedSequence(band, self._tokens(window), dense[window].tolist()) for band, window in bands]

    def _tokens(self, window: int) -> list[str]:
        row, start = divmod(window * self._width, self._ids.shape[1])
        ids = self._ids[row].tolist()
        found: list[str] = self._texts.window(
            ids[start : start + self._width], opening=start == 0, before=ids[:start][-3:]
        )
        return found


def _range(path: Path) -> tuple[int, int]:
    """The first and the last latent of a file."""
    match = re.fullmatch(r"(\d+)_(\d+)", path.stem)
    return (int(match[1]), int(match[2])) if match else (0, -1)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no JSON file ({error}); copy it again") from None


IMPORT = Import("results of Delphi: explanations and the cache of activations", read)
