"""Plots are files that open, come again the same, and show what the tables say."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pipeline.commands.plots import make_plots
from pipeline.errors import UserError
from stages import REPORTS
from tests.pipeline.report.made_up_run import write_run


def test_plots_are_written_as_svg_and_png_and_come_again_the_same(tmp_path: Path) -> None:
    root = write_run(tmp_path / "run", 12)
    assert make_plots(root, REPORTS).startswith("3 plots")
    files = {path.name: path.read_bytes() for path in (root / "plots").iterdir()}
    names = {f"scores_{name}" for name in ("distribution", "modules", "density")}
    assert set(files) == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith("png"))
    text = "".join(ET.fromstring(files["scores_modules.svg"].decode()).itertext())
    for module in ("layers.0.mlp", "layers.1.mlp", "layers.2.mlp", "explanations of other units", "mean correlation"):
        assert module in text
    make_plots(root, REPORTS)
    assert {path.name: path.read_bytes() for path in (root / "plots").iterdir()} == files


def test_a_run_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make run"):
        make_plots(tmp_path, REPORTS)
