"""The operations that have kernels, as torch.library ops with one signature on every device.

Three are those of the streaming cache:

- `norm_rope_append`: normalise and rotate q and k, write k and v into their slot.
- `ring_attention`: attend to the valid prefix of the cache.
- `ema_sink_update`: fold an evicted chunk into the sink.

The fourth works on rows of channels, for networks that are bound by memory between their products:

- `add_norm`: a residual sum, its norm and its activation (`bias_norm` and `gated_sum`: its halves).

Before a product of e4m3 come

- `quantise_rows`: rows, or their GELU, to e4m3 with a scale for each.
- `add_norm_e4m3` and `bias_norm_e4m3`: the same of what is normed, in the pass that norms it.

A layer's cache is [B, heads, slots * tokens, head_dim], keys rotated at their absolute positions.
What changes from chunk to chunk (slot, rotation table) is a tensor in device memory, so that one
captured graph serves every chunk.

On CUDA devices the native module's kernels serve bfloat16 and float16 with a head_dim of 64 or 128 (rows of
a multiple of 8 channels, up to 5120, of `quantise_rows` 14336), and attention is theirs or torch's, whichever
is faster (`set_attention`). On a CPU its loops serve float32, all but `ema_sink_update` and what gives e4m3;
attention with AVX-512 and a head_dim that is a multiple of 32. All else is plain torch.
"""

from pyrf.ops.add_norm import add_norm, add_norm_e4m3, bias_norm, bias_norm_e4m3, gated_sum
from pyrf.ops.attention_choice import set_attention
from pyrf.ops.ema_sink_update import ema_sink_update
from pyrf.ops.norm_rope_append import norm_rope_append
from pyrf.ops.quantise_rows import quantise_rows
from pyrf.ops.ring_attention import ring_attention

__all__ = [
    "add_norm",
    "add_norm_e4m3",
    "bias_norm",
    "bias_norm_e4m3",
    "ema_sink_update",
    "gated_sum",
    "norm_rope_append",
    "quantise_rows",
    "ring_attention",
    "set_attention",
]
