"""Plots of a run for a paper: how scores are distributed beside their controls, by module, and against density."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.execution.stage import MethodReport
from pipeline.report.unit_list import list_units
from pipeline.results.run_folder import open_run
from pipeline.storage.stores import scratch

if TYPE_CHECKING:
    import pandas as pd

LOOKS = {
    "score": ("explanation of the unit", "#0a5fb4", "-", "o"),
    "control": ("explanations of other units", "#a34400", "--", "x"),
    "lookup": ("full token table", "#4b6b00", ":", "D"),
}
"""Label, colour, line and mark of a score and of what it is held against."""
FORMATS = ("svg", "png")
CONFIDENCE = 0.95


def make_plots(root: Path, methods: Sequence[MethodReport]) -> str:
    """Write the plots of a run as SVG and PNG into RUN/plots; returns in words where they are.

    Raises:
        UserError: matplotlib is not installed, or the run has scored no unit yet.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise UserError("plots need matplotlib; install it with: pip install 'neurogloss[plots]'") from None
    run = open_run(root)
    used = [method for method in methods if method.table in run.tables]
    if not used:
        raise UserError(f"no unit of {root} is scored yet; finish the run with: make run")
    rows, folder, made = list_units(run, used).rows, scratch(root) / "plots", 0
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {"distribution": _distribution, "modules": _by_module, "density": _against_density}
    with mpl.rc_context({"svg.hashsalt": "neurogloss", "svg.fonttype": "none", "font.size": 9}):
        for number, method in enumerate(used):
            own = rows[(rows["method"] == number) & rows["score"].notna()]
            for name, draw in drawings.items() if len(own) else ():
                made += _write(folder / f"{method.table}_{name}", draw, own, method.score)
    return f"{made} plots, each as {' and '.join(FORMATS)}: {folder.resolve()}"


def _write(path: Path, draw: Callable[[Any, "pd.DataFrame", str], bool], rows: "pd.DataFrame", label: str) -> bool:
    """Draw one plot and write it in every format; False where there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    if not draw(axes, rows, label):
        return False
    for kind in FORMATS:
        figure.savefig(path.with_suffix(f".{kind}"), dpi=200, metadata={"Date": None} if kind == "svg" else None)
    return True


def _distribution(axes: Any, rows: "pd.DataFrame", label: str) -> bool:
    """How many units have which score, beside the controls."""
    names = [name for name in LOOKS if rows[name].notna().any()]
    ends = np.histogram_bin_edges(rows[names].to_numpy()[np.isfinite(rows[names].to_numpy())], bins=30)
    for name in names:
        text, color, line, _ = LOOKS[name]
        axes.hist(rows[name].dropna(), bins=ends, histtype="step", color=color, linestyle=line, label=text)
    axes.set(xlabel=label, ylabel="units")
    axes.legend(frameon=False)
    return True


def _by_module(axes: Any, rows: "pd.DataFrame", label: str) -> bool:
    """The mean of each module, with a bootstrap interval over its units."""
    from scipy.stats import bootstrap

    modules = list(dict.fromkeys(rows["module"]))
    for shift, (name, (text, color, _, mark)) in enumerate(LOOKS.items()):
        for place, module in enumerate(modules):
            values = rows.loc[rows["module"] == module, name].dropna().to_numpy(float)
            if not len(values):
                continue
            at, first = place + 0.15 * (shift - 1), place == 0
            axes.plot(at, values.mean(), mark, color=color, label=text if first else None)
            if len(values) > 2 and values.std() > 0:
                found = bootstrap((values,), np.mean, confidence_level=CONFIDENCE, rng=0).confidence_interval
                axes.plot([at, at], [found.low, found.high], color=color)
    axes.set_xticks(range(len(modules)), modules, rotation=30 if len(modules) > 3 else 0)
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set(ylabel=f"mean {label}, {CONFIDENCE:.0%} interval")
    axes.legend(frameon=False)
    return True


def _against_density(axes: Any, rows: "pd.DataFrame", label: str) -> bool:
    """The score of each unit against the share of tokens on which it fires."""
    known = rows[rows["density"] > 0]
    if known.empty:
        return False
    axes.semilogx(known["density"], known["score"], "o", color=LOOKS["score"][1], markersize=3, alpha=0.6)
    axes.set(xlabel="share of tokens on which the unit fires", ylabel=label)
    return True
