"""Which instance of a kernel serves a model."""

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
