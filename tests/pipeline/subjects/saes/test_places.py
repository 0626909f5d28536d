"""The files of a sparse coder tell where it reads."""

from pathlib import Path

import numpy as np
import pytest
from torch import linspace, nn

from pipeline.errors import UserError
from tests.pipeline.subjects.saes.layouts import (
    Array,
    D,
    dense,
    draw,
    gemma_scope,
    reads,
    saelens_3,
    saelens_6,
    site_of,
    sparsify,
    stream,
)

W, WIDE = draw(), draw(outputs=D + 2)
BASE = {"W_enc": W.w_enc, "b_enc": W.b_enc, "W_dec": W.w_dec, "b_dec": W.b_dec}


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("blocks.3.hook_resid_post", "output of layer"),
        ("blocks.3.hook_resid_pre", "input of layer"),
        ("blocks.3.hook_attn_out", "output of self_attn.o_proj"),
        ("blocks.3.hook_mlp_out", "output of mlp.down_proj"),
        ("blocks.3.mlp.hook_post", "input of mlp.down_proj"),
        ("model.layers.3", "output of layer"),
        ("transformer.h.3.mlp", "output of mlp"),
        ("gpt_neox.layers.3.attention", "output of attention"),
    ],
)
def test_the_hook_of_saelens_tells_the_place(hook: str, place: str, tmp_path: Path) -> None:
    assert reads(site_of(saelens_6(tmp_path / "6", "standard", BASE, hook_name=hook))) == place
    assert reads(site_of(saelens_3(tmp_path / "3", "standard", BASE, hook_name=hook))) == place
    old = {"hook_name": None, "hook_point": hook, "hook_point_layer": 3, "hook_point_head_index": None}
    assert reads(site_of(saelens_3(tmp_path / "1", "standard", BASE, **old))) == place


@pytest.mark.parametrize(
    ("folder", "transcode", "place"),
    [
        ("layers.3", False, "output of layer"),
        ("layers.3.mlp", False, "output of mlp"),
        ("h.3.attn", False, "output of attn"),
        ("layers.3.self_attn/seed1", False, "output of self_attn"),
        ("layers.3", True, "input of layer"),
        ("layers.3.mlp", True, "input of mlp"),
        ("my-coder", False, "output of layer"),
    ],
)
def test_the_folder_of_sparsify_tells_the_place(folder: str, transcode: bool, place: str, tmp_path: Path) -> None:
    assert reads(site_of(sparsify(tmp_path / folder, W, transcode=transcode))) == place


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_71", "output of layer"),
        ("gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_71", "output of mlp.down_proj"),
        ("gemma-scope-2b-pt-res-canonical/layer_3/width_16k/canonical", "output of layer"),
        ("mine", "output of layer"),
    ],
)
def test_the_path_of_gemma_scope_tells_the_place(folder: str, place: str, tmp_path: Path) -> None:
    path = gemma_scope(tmp_path / folder, W)
    assert reads(site_of(path)) == reads(site_of(path / "params.npz")) == place


def test_links_to_the_files_of_gemma_scope_tell_the_place_by_their_own_path(tmp_path: Path) -> None:
    """As in the cache of the hub, which keeps files under their hashes."""
    blob = gemma_scope(tmp_path / "blobs", W) / "params.npz"
    folder = tmp_path / "models--google--gemma-scope-2b-pt-mlp" / "snapshots" / "1" / "layer_5" / "width_16k"
    folder.mkdir(parents=True)
    (folder / "params.npz").symlink_to(blob)
    assert reads(site_of(folder, layer=5)) == "output of mlp.down_proj"
    with pytest.raises(UserError, match="belong to layer 5"):
        site_of(folder)


def test_the_run_file_overrules_the_files(tmp_path: Path) -> None:
    hidden = saelens_6(tmp_path / "a", "standard", BASE, hook_name="blocks.3.ln2.hook_normalized")
    module = sparsify(tmp_path / "layers.3.mlp", W)
    assert reads(site_of(hidden, reads="mlp_in")) == "input of mlp"
    assert reads(site_of(module, reads="mlp_out")) == "output of mlp.down_proj"
    assert reads(site_of(gemma_scope(tmp_path / "b", W), reads="attn_out")) == "output of self_attn.o_proj"


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("form", ["saelens", "gemma_scope"])
def test_the_gain_of_the_norm_is_taken_off_where_a_transcoder_reads_before_it(
    form: str, kind: type[nn.LayerNorm | nn.RMSNorm], tmp_path: Path
) -> None:
    norm = kind(D)
    for number, parameter in enumerate(norm.parameters()):
        parameter.data = linspace(-0.6, 2 + number, D)
    if form == "saelens":
        across = {"W_enc": WIDE.w_enc, "b_enc": WIDE.b_enc, "W_dec": WIDE.w_dec, "b_dec": WIDE.b_dec}
        hook = "blocks.3.ln2.hook_normalized"
        path = saelens_6(tmp_path, "transcoder", across, d_out=D + 2, hook_name=hook, apply_b_dec_to_input=False)
        threshold: Array | float = 0.0
    else:
        path = gemma_scope(tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k", WIDE)
        threshold = WIDE.threshold
    site = site_of(path, norm=norm)
    assert reads(site) == "input of mlp"
    x = stream()
    plain = kind(D, elementwise_affine=False)
    normalised = plain(x).reshape(-1, D).double().numpy()
    assert site.read is not None
    found = dense(site.read(norm(x).detach()))
    before = normalised @ WIDE.w_enc + WIDE.b_enc
    np.testing.assert_allclose(found, before * (before > threshold), rtol=1e-4, atol=1e-4)


def test_the_path_may_hold_the_number_of_the_layer(tmp_path: Path) -> None:
    for layer in (0, 1):
        sparsify(tmp_path / f"layers.{layer}.mlp", draw(seed=layer))
    for layer in (0, 1):
        site = site_of(tmp_path / "layers.{layer}.mlp", layer)
        assert site.vectors is not None
        vectors = site.vectors()
        assert vectors.writes is not None
        np.testing.assert_allclose(vectors.writes.numpy(), draw(seed=layer).w_dec, rtol=1e-6)
