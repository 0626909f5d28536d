"""The logit that a language model gives to a word after a prompt that holds the text."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import UserError
from pipeline.subjects.loading.model_loading import LoadedModel, describe_model, load_language_model
from pipeline.subjects.text_batches import TextBatches

Values = npt.NDArray[np.float64]
TEXT = "{text}"


def next_word(
    words: str | Sequence[str],
    model: str,
    prompt: str = TEXT,
    against: str | Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
) -> Callable[[list[str]], Values]:
    """f(x) is the logit of a word after the prompt with x in it, with one unit for each word.

    Args:
        words: each a single token of the model, with the space in front that it has in running text.
        model: a causal model, as subject.model.
        prompt: holds {text} once, such as "{text}\\nThe mood of this text is".
        against: words of which the mean logit is taken off, which leaves out what moves all words alike.
        device: where the model runs.
        dtype: as subject.dtype.

    Raises:
        UserError: the prompt has no {text}, a word is not one token, or the model is not there or is not causal.
    """
    loaded = load_language_model(model, dtype, device)
    if loaded.model.get_output_embeddings() is None or "ForCausalLM" not in type(loaded.model).__name__:
        raise UserError(
            f"model = {model!r} is {type(loaded.model).__name__}, which predicts no next word; name a causal model"
        )
    wanted, others = _tokens(words, loaded), _tokens(against, loaded)
    if not wanted:
        raise UserError(f'words = {words!r}; expected words, such as [" good", " bad"]')
    longest = describe_model(model, False).context_length
    batches = TextBatches(loaded.tokenizer, "auto", longest, loaded.device.type, opening=False, padding=False)
    around = _around(prompt, loaded.tokenizer, batches.longest)
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(loaded.model.forward).parameters else {}

    def logits(texts: list[str]) -> Values:
        found = np.full((len(texts), len(wanted)), np.nan)
        for batch in batches.batches([around(text) for text in texts]):
            ids = torch.from_numpy(batch.tokens.token_ids).to(loaded.device)
            with torch.inference_mode():
                given = loaded.model(input_ids=ids, use_cache=False, **last).logits[: len(batch.places), -1]  # (M, V)
            values, middle = (given[:, tokens].cpu().double() for tokens in (wanted, others))
            found[batch.places] = (values - (middle.mean(dim=1, keepdim=True) if others else 0.0)).numpy()
        return found

    return logits


def _around(prompt: str, tokenizer: Any, longest: int) -> Callable[[str], str]:
    """Puts a prompt around a text, of which so much is shown that the end of the prompt is among the `longest` tokens read."""
    if prompt.count(TEXT) != 1:
        raise UserError(f"prompt = {prompt!r}; expected {TEXT} in it once, where the text is to stand")
    room = longest - len(tokenizer(prompt, add_special_tokens=True)["input_ids"])
    if room < 1:
        raise UserError(f"prompt = {prompt[:60]!r}... leaves no room for a text in {longest} tokens; shorten it")

    def around(text: str) -> str:
        ends = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return prompt.replace(TEXT, text if len(ends) <= room else text[: ends[room - 1][1]])

    return around


def _tokens(words: str | Sequence[str], loaded: LoadedModel) -> list[int]:
    """The token of each word."""
    found = []
    for word in [words] if isinstance(words, str) else list(words):
        ids = loaded.tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            pieces = loaded.tokenizer.convert_ids_to_tokens(ids)
            raise UserError(
                f"the word {word!r} is {len(ids)} tokens of {loaded.name}: {pieces}; expected one token, perhaps with a space in "
                "front or another spelling"
            )
        found.append(int(ids[0]))
    return found
