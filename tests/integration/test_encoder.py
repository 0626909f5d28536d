"""An encoder is recorded as a causal model is: its sequences see both sides, and nothing of the padding."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import RobertaConfig, RobertaForMaskedLM

from pipeline.config.run_file import parse_config
from pipeline.execution.runner import run_stage
from stages.corpus import CORPUS
from stages.record.merge import MERGE
from stages.record.scan import SCAN
from stages.settings import SECTIONS
from tests.integration.byte_tokenizer import byte_tokenizer

TEXT = "the red house and a green door stood by blue water while seven birds sang of summer"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recording of a random RoBERTa; beside it the model."""
    folder = tmp_path_factory.mktemp("encoder")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(TEXT.split(), size=size)) for size in rng.integers(5, 30, 40)]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    tokenizer = byte_tokenizer(texts, bos_token="<s>", pad_token="<pad>", eos_token="</s>")
    torch.manual_seed(0)
    config = RobertaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(tokenizer),
        max_position_embeddings=34, initializer_range=0.5,
    )  # fmt: skip
    RobertaForMaskedLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    config = parse_config(
        {
            "run": {"name": "encoder", "folder": str(folder)},
            "subject": {
                "model": str(folder / "model"),
                "modules": ["layers.1.mlp", "layers.1.attn", "layers.0.residual"],
            },
            "corpus": {"source": str(folder / "texts.jsonl"), "seq_len": 16, "min_tokens": 4, "bos": "yes"},
            "record": {"batch_size": 8, "shard_sequences": 16, "min_token_count": 1},
        },
        "encoder.toml",
        SECTIONS,
    )
    stages = {stage.name: stage for stage in (CORPUS, SCAN, MERGE)}
    for stage in stages.values():
        stage.check(config)
        assert run_stage(stage, config, stages, show=False).finished
    return folder / "encoder"


def test_activations_are_those_of_the_model_on_each_sequence_alone(root: Path) -> None:
    model = RobertaForMaskedLM.from_pretrained(root.parent / "model").eval()
    corpus = pd.read_parquet(root / "corpus").set_index("seq_id")["token_ids"]
    assert corpus.str.len().nunique() > 3
    exemplars = pd.read_parquet(root / "exemplars").query("index == 3")
    for row in exemplars.sample(40, random_state=0).to_dict("records"):
        seen: dict[str, torch.Tensor] = {}
        block = model.roberta.encoder.layer[1]
        hook = block.output.dense.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.update(mlp=inputs[0]))
        other = block.attention.output.dense.register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.update(z=inputs[0])
        )
        with torch.inference_mode():
            ids = torch.tensor([corpus[row["seq_id"]].tolist()])
            hidden = model(ids, output_hidden_states=True).hidden_states
            write = seen["z"][0, :, 12:16] @ block.attention.output.dense.weight[:, 12:16].T
        hook.remove()
        other.remove()
        by_hand = {
            "layers.1.mlp": seen["mlp"][0, :, 3],
            "layers.1.attn": write.norm(dim=-1),
            "layers.0.residual": hidden[1][0, :, 3],
        }[row["module"]].numpy()
        counted = pd.notna(row["activations"])
        np.testing.assert_allclose(np.asarray(row["activations"])[counted], by_hand[counted], rtol=1e-3, atol=1e-4)
        assert counted.sum() >= 3
