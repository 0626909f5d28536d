"""A TopK sparse autoencoder in the layout of sparsify, without training.

Run: python -m tests.benchmarks.peer.sparse_coder MODEL TOKENS.npy LAYER LATENTS FOLDER

A latent is the direction of the residual stream at some token of the corpus, less the mean: latents look for real
contents, so that few are dead and few fire everywhere, as in a trained coder.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModel

K = 32
SAMPLED = 256
"""Sequences that directions are taken from."""


def directions(states: torch.Tensor, latents: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) states -> (latents, D) unit vectors of some of them less the mean, and the (D,) mean."""
    chosen = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))[:latents]
    mean = states.mean(dim=0)
    return torch.nn.functional.normalize(states[chosen] - mean, dim=1), mean


def save(folder: Path, weights: torch.Tensor, mean: torch.Tensor) -> None:
    """Write cfg.json and sae.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    latents, width = weights.shape
    tensors = {
        "encoder.weight": weights.contiguous(),
        "encoder.bias": torch.zeros(latents),
        "W_dec": weights.clone(),
        "b_dec": mean.contiguous(),
    }
    save_file(tensors, folder / "sae.safetensors")
    settings = {"activation": "topk", "num_latents": latents, "k": K, "d_in": width, "transcode": False}
    (folder / "cfg.json").write_text(json.dumps(settings), encoding="utf-8")


def main() -> None:
    model_path, tokens_path, layer, latents, folder = sys.argv[1:]
    torch.set_num_threads(1)
    model: Any = AutoModel.from_pretrained(model_path, dtype=torch.float32).eval().requires_grad_(False)
    tokens = torch.from_numpy(np.load(tokens_path)[:SAMPLED])
    found = []

    def keep(_: object, __: object, output: Any) -> None:
        states = output if isinstance(output, torch.Tensor) else output[0]
        found.append(states[:, 1:].flatten(0, 1))  # the first position is an attention sink

    model.layers[int(layer)].register_forward_hook(keep)
    with torch.inference_mode():
        for batch in torch.split(tokens, 32):
            model(batch, use_cache=False)
    states = torch.cat(found)
    if len(states) < int(latents):
        raise SystemExit(
            f"{len(states)} tokens are too few for {latents} latents; give more sequences or fewer latents"
        )
    save(Path(folder), *directions(states, int(latents)))


if __name__ == "__main__":
    main()
