"""A null run, and a subject that has learnt nothing, are told wherever scores are shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.compare import print_comparison
from pipeline.commands.query import final_report
from pipeline.commands.report import make_report
from pipeline.commands.status import status_text
from pipeline.config.run_file import parse_config
from pipeline.execution.frozen_run_file import freeze
from stages import REPORTS
from stages.settings import SECTIONS
from tests.pipeline.report.made_up_run import write_run

UNUSUAL = [
    ({"run": {"null": "permuted"}}, "there is nothing to find"),
    ({"subject": {"weights": "shuffled", "weights_seed": 3}}, "shuffled weights (subject.weights, seed 3)"),
]


@pytest.mark.parametrize(("settings", "words"), UNUSUAL, ids=["null", "weights"])
def test_report_status_pages_and_comparison_say_it(
    settings: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file: dict[str, Any] = {
        "run": {"name": "run", "folder": str(tmp_path)},
        "subject": {"model": "m", "modules": ["layers.0.mlp"]},
        "corpus": {"source": "c.txt"},
    }
    for unusual in (False, True):
        given = {name: values | (settings.get(name, {}) if unusual else {}) for name, values in file.items()}
        config = parse_config(given, "r.toml", SECTIONS)
        root = config.root if config.root.exists() else write_run(config.root, 2)
        kept = {"format": 1, "machines": [], "stages": [], **freeze(config)}
        (root / "provenance.json").write_text(json.dumps(kept), encoding="utf-8")
        make_report(root, REPORTS)
        print_comparison(root, [root], "table")
        page = json.loads(
            (root / "report" / "data" / "run.js").read_text().split("(", 1)[1].rsplit(")", 1)[0].split(",", 1)[1]
        )
        shown = [
            final_report(root, 0, REPORTS),
            status_text(config, {}, REPORTS),
            " ".join(page["methods"][0]["tested"]),
            capsys.readouterr().out,
        ]
        assert [words in text for text in shown] == [unusual] * len(shown)
