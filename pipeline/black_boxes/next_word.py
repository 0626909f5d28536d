"""The logit that a language model gives to a word after a prompt that holds the text."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from pipeline.black_boxes.hidden import text_batches
from pipeline.errors import UserError
from pipeline.subjects.load import LoadedModel, load_language_model

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
    if prompt.count(TEXT) != 1:
        raise UserError(f"prompt = {prompt!r}; expected {TEXT} in it once, where the text is to stand")
    loaded = load_language_model(model, dtype, device)
    if loaded.model.get_output_embeddings() is None or "ForCausalLM" not in type(loaded.model).__name__:
        raise UserError(
            f"model = {model!r} is {type(loaded.model).__name__}, which predicts no next word; name a causal model"
        )
    wanted, others = _tokens(words, loaded), _tokens(against, loaded)
    if not wanted:
        raise UserError(f'words = {words!r}; expected words, such as [" good", " bad"]')
    batches = text_batches(loaded)
    head = loaded.model.get_output_embeddings()

    def logits(texts: list[str]) -> Values:
        found = np.full((len(texts), len(wanted)), np.nan)
        for batch in batches.batches([prompt.replace(TEXT, text) for text in texts]):
            ids = torch.from_numpy(batch.tokens.token_ids).to(loaded.device)
            within = torch.arange(ids.shape[1]) < torch.from_numpy(batch.tokens.lengths)[:, None]
            with torch.inference_mode():
                states = loaded.model.base_model(
                    input_ids=ids, attention_mask=within.long().to(loaded.device), use_cache=False
                ).last_hidden_state
                last = states[torch.arange(len(ids)), torch.from_numpy(batch.tokens.lengths) - 1]
                given = head(last).double().cpu().numpy()  # (B, V)
            values = given[:, wanted] - (given[:, others].mean(axis=1, keepdims=True) if others else 0.0)
            found[batch.places] = values[: len(batch.places)]
        return found

    return logits


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
