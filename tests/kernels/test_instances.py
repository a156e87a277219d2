"""Which instance of a kernel serves a model."""

import pytest

from pyrf.kernels.instances import Instance


def test_the_instance_of_sums_and_norms_is_the_narrowest_that_holds_a_row() -> None:
    widths = {(12, 128): 1536, (40, 128): 5120, (3, 32): 128, (1, 136): 256}
    for (heads, head_dim), width in widths.items():
        expected = Instance("add_norm", "bfloat16", width)
        assert Instance.serving("add_norm", "bfloat16", heads, head_dim) == expected
    assert Instance.serving("add_norm", "bfloat16", 41, 128) is None
    assert Instance.serving("ring_attention", "bfloat16", 12, 96) is None
    assert Instance.serving("norms", "bfloat16", 12, 128) is None
    assert Instance.serving("ring_attention", "float32", 12, 128) is None


def test_names_of_entries() -> None:
    for entry, instance in {
        "_ZN4pyrf23norm_rope_append_kernelINS_4Bf16ELi64ES1_EEvNS_14NormRopeParamsE": Instance(
            "norm_rope_append", "bfloat16", 64
        ),
        "_ZN4pyrf23norm_rope_append_kernelINS_4Fp16ELi128ENS_4E4m3EEEvNS_14NormRopeParamsE": Instance(
            "norm_rope_append", "float16", 128, "float8_e4m3fn"
        ),
        "_ZN4pyrf22ema_sink_update_kernelINS_4E4m3ELi64EEEvNS_13EmaSinkParamsE": Instance(
            "ema_sink_update", "float8_e4m3fn", 64
        ),
    }.items():
        assert Instance.of(entry) == instance
    with pytest.raises(ValueError, match="is not the name of a kernel"):
        Instance.of("_ZN4pyrf22ema_sink_update_kernelINS_4E5m2ELi64EEEvNS_13EmaSinkParamsE")
