"""Responses from the sequences that hold an n-gram, against a plain twin that looks at one occurrence after another."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config import RunConfig
from pipeline.subjects.activation_sources import open_source
from pipeline.subjects.activations import TokenBatch
from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.vocabulary import TokenTexts
from stages.sasc import Sasc
from stages.sasc.ngram_pieces import Places
from tests.stages.sasc.small_run import GOOD, occurrences, run_file, run_ngrams, table

MODULES = ["layers.0.mlp", "layers.1.sae:small", "layers.0.directions:axes"]


pytestmark = pytest.mark.usefixtures("in_place")


def activations(
    config: RunConfig, module: str, token_ids: list[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(T, U) of one sequence by itself."""
    found = []
    ids = np.asarray([token_ids])
    batch = TokenBatch(ids, np.asarray([len(token_ids)]), np.zeros(1, np.int64))

    def receive(_: str, given: object) -> None:
        if isinstance(given, torch.Tensor):
            found.append(given[0].double().numpy().copy())
        else:
            dense = np.zeros(given.shape[1:])  # type: ignore[attr-defined]
            dense[given.positions, given.units] = given.values  # type: ignore[attr-defined]
            found.append(dense)

    open_source(config, [module]).run(batch, receive)
    return found[0]


def twin(root: Path, config: RunConfig, module: str, text: str) -> np.ndarray[tuple[int], np.dtype[np.float64]] | None:
    """The mean over the occurrences of an n-gram of words; None where it is in no sequence."""
    found = []
    for row in table(root, "corpus").to_dict("records"):
        for inside in occurrences(config, row, text):
            values = activations(config, module, row["token_ids"].tolist())[inside]
            found.append({"max": values.max(0), "mean": values.mean(0), "last": values[-1]}[config[Sasc].pool])
    return np.mean(found, axis=0) if found else None


@pytest.mark.parametrize("pool", ["max", *(pytest.param(pool, marks=pytest.mark.slow) for pool in ("mean", "last"))])
def test_responses_are_the_means_over_the_occurrences(place: Path, pool: str) -> None:
    config = run_file(
        place, f"in-{pool}", MODULES, reading="in_context", pool=pool, max_ngrams=25, sizes=[1, 3], kept=30
    )
    root = run_ngrams(config)
    listed = table(root, "_ngrams/list")
    for module in MODULES:
        means = [twin(root, config, module, text) for text in listed["text"]]
        seen = [number for number, mean in enumerate(means) if mean is not None]
        wanted = np.stack([mean for mean in means if mean is not None])
        ngrams = table(root, "ngrams").query("module == @module and polarity == '+'")
        for unit, rows in ngrams.groupby("index"):
            own = wanted[:, int(str(unit))]
            found = rows.set_index("ngram_id")["response"].loc[seen]
            np.testing.assert_allclose(found, own, rtol=1e-4, atol=1e-6)
        responses = table(root, "responses").query("module == @module and polarity == '+'")
        assert set(responses["n_ngrams"]) == {len(seen)}
        np.testing.assert_allclose(responses["sigma"], wanted.std(axis=0), rtol=1e-3, atol=1e-6)


def test_a_small_memory_for_sums_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = ["layers.0.mlp", GOOD]
    whole = run_ngrams(run_file(place, "once", modules, reading="in_context"))
    monkeypatch.setattr("stages.sasc.readings.SUM_BYTES", 8 * 24 * 60)
    cut = run_ngrams(run_file(place, "often", modules, reading="in_context"))
    for name in ("responses", "ngrams"):
        assert table(cut, name).equals(table(whole, name))
    assert len(list((cut / "_ngrams" / "partials").iterdir())) == 2, "one of the module, one of the black box"


def test_words_that_a_sequence_cuts_and_the_first_position_are_left_out(place: Path) -> None:
    config = run_file(place, "places", ["layers.0.mlp"])
    tokens = ["ing", " the", " red", ",", " fo"] + [" x"] * 26 + [" foxe"]
    assert len(tokens) == config.corpus.seq_len
    places = Places(
        ["ing", "the", "the red,", "fo", "foxe", "RED"], config, TokenTexts(load_tokenizer(config.subject.model))
    )
    assert places.find(5, range(32), tokens) == [(1, 1, 2), (5, 2, 3), (3, 4, 5), (2, 1, 4)]
    assert places.find(0, range(32), tokens) == places.find(5, range(32), tokens), (
        "the first position is an attention sink"
    )
    assert (4, 30, 31) in places.find(0, range(31), tokens[1:]), "a document's end cuts no word"


def test_a_character_of_several_tokens_is_found_and_special_tokens_are_in_no_ngram(place: Path) -> None:
    config = run_file(place, "tokens", ["layers.0.mlp"], pieces="tokens", sizes=[1, 2, 3])
    tokenizer = load_tokenizer(config.subject.model)
    texts = TokenTexts(tokenizer)
    ids = [5, *tokenizer("語", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert len(ids) > 3
    places = Places(["語"], config, texts)
    assert places.find(0, ids, texts.window(ids, opening=True)) == [(0, 1, len(ids) - 1)]
