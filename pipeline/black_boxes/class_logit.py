"""The logits of a classifier of texts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from pipeline.errors import UserError, nearest
from pipeline.subjects.loading.model_loading import (
    load_tokenizer,
    model_folder,
    quiet_transformers,
    resolve_device,
    told_to_the_user,
)
from pipeline.subjects.loading.model_source import resolve_model
from pipeline.subjects.text_batches import LONGEST, TextBatches

Values = npt.NDArray[np.float64]


def class_logit(
    model: str, classes: str | int | Sequence[str | int] | None = None, device: str = "auto"
) -> Callable[[list[str]], Values]:
    """f(x) is the logit of a class, with one unit for each class.

    Args:
        model: a transformers model for sequence classification: a hub id or a folder with safetensors.
        classes: labels of the model, or their numbers; all of them in their order unless given.
        device: where it runs.

    Raises:
        UserError: the model or its device is not there, it is no classifier, or it has no such class.
    """
    place = resolve_device(device)
    source = resolve_model(model)
    tokenizer = load_tokenizer(model)
    with quiet_transformers(), told_to_the_user(source):
        folder = model_folder(source)
        config = AutoConfig.from_pretrained(folder)
        saved = config.architectures or []
        if not any(
            name.endswith("ForSequenceClassification") for name in saved
        ):  # a head of random weights says nothing
            raise UserError(
                f"model = {model!r} was saved as {', '.join(saved) or 'nothing that it names'} and has no trained classifier; "
                "name one saved as ...ForSequenceClassification"
            )
        classifier = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True
        )
    classifier.eval().requires_grad_(False).to(place)
    wanted = _classes(model, classes, config)
    if classifier.config.pad_token_id is None:
        classifier.config.pad_token_id = -1  # decoders look for the last token that is no padding; here none is
    longest = min(getattr(config, "max_position_embeddings", LONGEST), tokenizer.model_max_length)
    batches = TextBatches(tokenizer, "auto", longest, place.type, opening=False, padding=False)

    def logits(texts: list[str]) -> Values:
        found = np.full((len(texts), len(wanted)), np.nan)
        for batch in batches.batches(texts):
            ids = torch.from_numpy(batch.tokens.token_ids).to(place)
            with torch.inference_mode():
                given = classifier(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            found[batch.places] = given[: len(batch.places), wanted].cpu().double().numpy()
        return found

    return logits


def _classes(model: str, classes: str | int | Sequence[str | int] | None, config: Any) -> list[int]:
    labels = [str(config.id2label[number]) for number in range(config.num_labels)]
    numbers: dict[Any, int] = {label: number for number, label in enumerate(labels)}
    wanted = numbers.values() if classes is None else [classes] if isinstance(classes, str | int) else classes
    found = [numbers.get(one, one) for one in wanted]
    for one in found:
        if one not in range(len(labels)):
            raise UserError(f"{model!r} has no class {one!r}; {nearest(str(one), labels)}")
    return [int(one) for one in found]
