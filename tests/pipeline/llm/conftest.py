"""Tiny random models and tokenizers, built here, so that nothing is loaded."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from pipeline.subjects.loading.model_loading import LoadedModel

SIZES = {"vocab_size": 300, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
ROTARY = SIZES | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **SIZES),
    "llama": lambda: LlamaConfig(**ROTARY),
    "every layer with a window": lambda: MistralConfig(**ROTARY, sliding_window=20),
    "some layers with a window": lambda: Gemma3TextConfig(
        **ROTARY, sliding_window=20, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8
    ),
}
CHAT = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer(ten: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    """One token for each byte, and one for "10" if asked for."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|start|>": 0, "<|end|>": 1} | {letter: 2 + place for place, letter in enumerate(alphabet)}
    merges = []
    if ten:
        vocabulary["10"] = len(vocabulary)
        merges.append(("1", "0"))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|end|>")
    fast.add_tokens(["<tool>"])
    fast.chat_template = template
    return fast


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """Like SentencePiece: a space before every text, unknown characters as bytes."""
    letters = ["\u2581", *map(chr, range(0x21, 0x7F))]
    vocabulary = {
        text: place for place, text in enumerate(["<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *letters])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def tiny_model(kind: str, tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    torch.manual_seed(0)
    config = CONFIGS[kind]()
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    return LoadedModel(model, tokenizer, torch.device("cpu"), "tiny", kind)


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., LoadedModel]:
    def make(kind: str = "llama", ten: bool = False, template: str | None = None) -> LoadedModel:
        return tiny_model(kind, byte_tokenizer(ten, template))

    return make


@pytest.fixture(scope="session")
def spaced() -> PreTrainedTokenizerFast:
    return spaced_tokenizer()


@pytest.fixture(scope="session")
def chat_template() -> str:
    return CHAT
