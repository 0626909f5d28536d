"""Functions of texts, and activations that another program made, through all stages to a score."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.commands.run import run_pipeline
from pipeline.config.run_file import parse_config
from pipeline.errors import UserError
from stages import STAGES
from stages.settings import SECTIONS
from tests.integration.planted_words import WORDS, documents, save_tokenizer, sections

COUNT_WORDS = '''
import numpy as np

WORDS = {words!r}
KINDS = [set(words) for words in WORDS.values()]

def counts(texts):
    """(N, 6) how many words of each kind a text has; nothing is of the next kind, and the last one says so by NaN."""
    found = np.zeros((len(texts), len(KINDS) + 2))
    found[:, -1] = np.nan
    for row, text in enumerate(texts):
        for word in text.replace(".", " ").split():
            found[row, :-2] += [word in kind for kind in KINDS]
    return found

def raises(texts):
    if any("gold" in text for text in texts):
        raise LookupError("no gold here")
    return counts(texts)

def short(texts):
    return counts(texts)[: 8]

def random(texts):
    return counts(texts) + np.random.default_rng().random((len(texts), 6))
'''
OTHER_PROGRAM = """
import json, sys
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

tokenizer, texts, words = sys.argv[1], *(json.load(open(name)) for name in sys.argv[2:4])
tokenizer = Tokenizer.from_file(tokenizer)
rows = []
for text in texts:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    rows += [ids[start:start + 24] for start in range(0, len(ids), 24)]
for number in range(2):
    part = rows[number::2]
    lengths = np.array([len(ids) for ids in part])
    token_ids = np.zeros((len(part), 24), np.int32)
    activations = np.zeros((len(part), 24, len(words)), np.float16)
    for row, ids in enumerate(part):
        token_ids[row, :len(ids)] = ids
        for column, token in enumerate(ids):
            word = tokenizer.decode([token]).strip()
            activations[row, column] = [3.5 * (word in kind) - 0.1 for kind in words.values()]
    positions, units = np.nonzero(activations.reshape(-1, len(words)) > 0)
    values = np.full(len(positions), 2.0, np.float32)
    triples = {"positions": positions.copy(), "units": units.copy(), "values": values}
    activations[np.arange(24) >= lengths[:, None]] = np.nan
    tokens = {"token_ids": token_ids, "lengths": lengths}
    save_file(tokens | {"activations": activations}, f"made/{number}.safetensors")
    save_file(tokens | triples, f"few/{number}.safetensors", {"width": str(len(words)), "signed": "false"})
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, texts, functions, and activations written by another program."""
    folder = tmp_path_factory.mktemp("place")
    save_tokenizer(folder / "tokenizer")
    (folder / "texts").mkdir()
    texts = documents(60)
    for number, text in enumerate(texts):
        (folder / "texts" / f"{number:03}.txt").write_text(text)
    (folder / "planted_counts.py").write_text(COUNT_WORDS.format(words=WORDS))
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "words.json").write_text(json.dumps(WORDS))
    (folder / "other_program.py").write_text(OTHER_PROGRAM)
    for name in ("made", "few"):
        (folder / name).mkdir()
    script = [sys.executable, "other_program.py", "tokenizer/tokenizer.json", "texts.json", "words.json"]
    subprocess.run(script, check=True, cwd=folder)
    return folder


@pytest.fixture(autouse=True)
def working_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def run(place: Path, folder: Path, modules: list[str], source: str, function: str = "counts") -> int:
    """The exit code of a whole run; it is in `folder`."""
    os.symlink(place / "tokenizer", folder / "tokenizer")
    boxes = {"words": {"call": f"planted_counts:{function}", "units": 6, "window": 1, "batch_size": 50}}
    precomputed = {name: str(place / name) for name in ("made", "few")}
    values = sections(folder, modules, source, black_boxes=boxes, precomputed=precomputed)
    return run_pipeline(parse_config(values, "test.toml", SECTIONS), STAGES, list(STAGES))


def published(folder: Path) -> pd.DataFrame:
    """The published score of each unit."""
    return pd.read_parquet(folder / "run" / "scores").query("status != 'not_selected'").set_index(["module", "index"])


@pytest.fixture(scope="module")
def of_function(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on a function of texts."""
    folder = tmp_path_factory.mktemp("function")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert run(place, folder, ["black_box:words"], str(place / "texts")) == 0
    return folder


def test_a_function_of_texts_is_explained_and_scored(of_function: Path) -> None:
    scores = published(of_function).loc["black_box:words"]
    assert scores["status"].to_dict() == dict.fromkeys(range(4), "ok") | dict.fromkeys((4, 5), "dead")
    assert (scores["correlation"][:4] > 0.7).all(), scores[["correlation", "text"]]
    assert (scores["correlation_shuffled"][:4] < 0.3).all()
    for unit, words in enumerate(WORDS.values()):
        assert any(word in scores["text"][unit] for word in words)


def test_its_activations_are_those_of_the_tokens_of_the_corpus(of_function: Path) -> None:
    exemplars = pd.read_parquet(of_function / "run" / "exemplars").query("index == 0")
    corpus = pd.read_parquet(of_function / "run" / "corpus").set_index("seq_id")["tokens"]
    for row in exemplars.to_dict("records"):
        true = [float(token.strip(" .") in WORDS["colours"]) for token in corpus[row["seq_id"]]]
        np.testing.assert_array_equal(row["activations"][1:], true[1:])


def test_values_that_are_not_finite_are_counted_and_their_unit_has_no_score(of_function: Path) -> None:
    units = pd.read_parquet(of_function / "run" / "units").set_index("index")
    assert units["n_nonfinite"][5] == units["n_tokens"][4] > 0
    assert units["n_tokens"][5] == 0
    assert not units["n_nonfinite"].drop(5).any()
    assert published(of_function)["correlation"].isna().to_list() == [False] * 4 + [True] * 2


@pytest.mark.slow
def test_activations_of_another_program_are_explained_and_scored_beside_a_function(place: Path, tmp_path: Path) -> None:
    assert run(place, tmp_path, ["black_box:words", "precomputed:made", "precomputed:few"], "precomputed:made") == 0
    scores = published(tmp_path).loc[["precomputed:made", "precomputed:few"]]
    assert scores["status"].to_list() == ["ok"] * 8
    assert (scores["correlation"] > 0.7).all(), scores[["correlation", "text"]]
    assert (scores["correlation_shuffled"] < 0.3).all()
    corpus = pd.read_parquet(tmp_path / "run" / "corpus")
    assert corpus["doc_id"].str.fullmatch(r"[01]\.safetensors:\d+").all()
    units = pd.read_parquet(tmp_path / "run" / "units").set_index(["module", "index"])
    assert not units["n_nonfinite"]["precomputed:made"].any(), "what is written in the padding is not looked at"
    np.testing.assert_allclose(units["max"]["precomputed:made"], 3.4, atol=1e-3)
    for name in ("black_box:words", "precomputed:few"):
        np.testing.assert_allclose(units["density"][name][:4], units["density"]["precomputed:made"], atol=1e-9)
    assert units["max"]["precomputed:few"].to_list() == [2.0] * 4


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (
            "raises",
            r"black_box:words \(planted_counts:raises\) raised LookupError: no gold here at .*planted_counts\.py",
        ),
        ("short", r"was given \d+ texts and gave 8 values; expected an array"),
        ("random", "must be deterministic"),
        ("absent", "has no 'absent'"),
    ],
)
def test_a_bad_function_ends_the_run_and_nothing_is_made_up(
    place: Path, tmp_path: Path, function: str, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run(place, tmp_path, ["black_box:words"], str(place / "texts"), function)
    for table in ("_partials", "units", "exemplars", "scores"):
        assert not list((tmp_path / "run").glob(f"{table}/**/*.parquet"))
