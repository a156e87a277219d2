"""Names of the same weights in Wan's own files and in the diffusers and transformers libraries."""

from __future__ import annotations

import re

_DIT = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
_DIT_BLOCK = {
    "modulation": "scale_shift_table",
    # Wan numbers norms by creation, diffusers by use: the one before cross-attention is 3 here and 2 there.
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    **{
        f"{ours}.{layer}": f"{theirs}.{name}"
        for ours, theirs in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for layer, name in (
            ("q", "to_q"),
            ("k", "to_k"),
            ("v", "to_v"),
            ("o", "to_out.0"),
            ("norm_q", "norm_q"),
            ("norm_k", "norm_k"),
        )
    },
}
_T5 = {"token_embedding": "shared", "norm": "encoder.final_layer_norm"}
_T5_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_VAE_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_VAE = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "decoder.head.0": "decoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.2": "decoder.conv_out",
}
_VAE_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def _inverse(table: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}


def _rename(key: str, outer: dict[str, str], inner: dict[str, str], blocks: tuple[str, str]) -> str:
    """Rename the module of `key`; a name in neither table stays, for the check of names to report it."""
    source, target = blocks
    module, dot, leaf = key.rpartition(".")
    if leaf not in ("weight", "bias"):  # a bare parameter, such as a modulation
        module, dot, leaf = key, "", ""
    if match := re.fullmatch(rf"{re.escape(source)}\.(\d+)\.(.+)", module):
        number, name = match.groups()
        return f"{target}.{number}.{inner.get(name, name)}{dot}{leaf}"
    return f"{outer.get(module, module)}{dot}{leaf}"


def dit_to_diffusers(key: str) -> str:
    """Wan's DiT -> diffusers WanTransformer3DModel."""
    return _rename(key, _DIT, _DIT_BLOCK, ("blocks", "blocks"))


def dit_from_diffusers(key: str) -> str:
    """Inverse of `dit_to_diffusers`."""
    return _rename(key, _inverse(_DIT), _inverse(_DIT_BLOCK), ("blocks", "blocks"))


def t5_to_transformers(key: str) -> str:
    """Wan's UMT5 encoder -> transformers UMT5EncoderModel."""
    return _rename(key, _T5, _T5_BLOCK, ("blocks", "encoder.block"))


def t5_from_transformers(key: str) -> str:
    """Inverse of `t5_to_transformers`."""
    return _rename(key, _inverse(_T5), _inverse(_T5_BLOCK), ("encoder.block", "blocks"))


def vae22_to_diffusers(key: str, *, num_res_blocks: int = 2) -> str:
    """Wan2.2's VAE -> diffusers AutoencoderKLWan with residual blocks: both group the layers by level."""
    match = re.fullmatch(r"(encoder|decoder)\.(down|up)samples\.(\d+)\.\2samples\.(\d+)\.(.+)\.(\w+)", key)
    if not match:
        return vae_to_diffusers(key)
    half, way, level, index, name, leaf = match.groups()
    blocks = num_res_blocks if way == "down" else num_res_blocks + 1
    place = f"{way}sampler" if int(index) == blocks else f"resnets.{index}"
    return f"{half}.{way}_blocks.{level}.{place}.{_VAE_RESIDUAL.get(name, name)}.{leaf}"


def vae_to_diffusers(key: str, *, num_res_blocks: int = 2) -> str:
    """Wan2.1's VAE -> diffusers AutoencoderKLWan, which groups the decoder's layers by level."""
    module, _, leaf = key.rpartition(".")
    if module in _VAE:
        return f"{_VAE[module]}.{leaf}"
    match = re.fullmatch(r"(encoder|decoder)\.(downsamples|middle|upsamples)\.(\d+)\.(.+)", module)
    if not match:
        return key
    half, stack, index, name = match.groups()
    name = _VAE_RESIDUAL.get(name, name)
    if stack == "middle":
        return f"{half}.mid_block.{_VAE_MIDDLE.get(index, index)}.{name}.{leaf}"
    if stack == "downsamples":
        return f"{half}.down_blocks.{index}.{name}.{leaf}"
    level, position = divmod(int(index), num_res_blocks + 2)
    place = "upsamplers.0" if position > num_res_blocks else f"resnets.{position}"
    return f"{half}.up_blocks.{level}.{place}.{name}.{leaf}"
