"""Floors: work against what torch counts and what tensors hold, occupancy, the report and its command."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pyrf import cli
from pyrf.backends.torch.parallel.bands import Bands
from pyrf.backends.torch.parallel.exchange import Exchange
from pyrf.backends.torch.parallel.rollout import SplitRollout
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.kernels import nvcc
from pyrf.kernels.instances import Instance
from pyrf.loop.cache import SinkRingCache
from pyrf.loop.rope import ChunkRope
from pyrf.models import wan22
from pyrf.models.dit.attention import CachedAttention
from pyrf.models.dit.model import WanModel
from pyrf.models.wan21 import MODELS
from pyrf.ops.e4m3 import E4M3
from pyrf.reports import roofline, roofline_table
from pyrf.reports.ceilings import E4M3_CEILINGS, SM, Ceiling
from pyrf.reports.roofline import Sizes, Work
from tests.reports.test_kernels import PTXAS
from tests.support import networks

WAN = Sizes.of(ModelConfig(), StreamConfig(), 480, 832)
SMALL = Sizes.of(replace(networks.MODEL, dim=32, num_heads=2), StreamConfig(), 32, 48)


def test_a_wan_chunk_is_what_the_project_says_it_is() -> None:
    assert (WAN.tokens, WAN.window) == (4680, 14040)
    call = roofline.total_flops(roofline.call(WAN))
    assert call == pytest.approx(24.3e12, rel=2e-3)
    assert 5 * call == pytest.approx(121e12, rel=5e-3)
    assert 5 * call / Ceiling().flops == pytest.approx(123e-3, rel=5e-3)
    assert pytest.approx(2.6e9, rel=1e-2) == WAN.cache_bytes
    # The clean call does not compute the last layer to its end.
    chunk = roofline.total_flops(roofline.chunk(WAN))
    assert 0.99 * 5 * call < chunk < 5 * call


def attention_flops(
    q: tuple[int, ...], keys: tuple[int, ...], values: object, length: object = None, **_: object
) -> int:
    """Of shapes [B, heads, tokens, head_dim]; the op of the cache says how many of the keys are valid."""
    batch, heads, queries, head_dim = q
    return 4 * batch * heads * queries * (length if isinstance(length, int) else keys[2]) * head_dim


ATTENTIONS = (
    torch.ops.pyrf.ring_attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
)


@pytest.mark.parametrize("clean", [False, True])
def test_torch_counts_the_same_products(clean: bool) -> None:
    """One call with a full window. Torch counts products and attentions; norms and sums are not counted."""
    model, stream = SMALL.model, SMALL.stream
    size, dtype = LatentSize(4, 6), torch.float32
    assert stream.chunk_frames * size.tokens == SMALL.tokens
    cache = SinkRingCache(model, stream, batch=1, size=size, dtype=dtype, device="cpu")
    for _ in range(stream.slots):
        cache.begin_chunk()
        cache.commit()
    cache.begin_chunk()
    network = WanModel(model).eval()
    attention = CachedAttention(cache, ChunkRope(model, size, dtype=dtype, device="cpu"))
    latents = torch.zeros(1, stream.chunk_frames, model.in_channels, *size)
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(ATTENTIONS, attention_flops))
    with torch.no_grad():
        prompt = network.encode_prompt(torch.zeros(1, model.text_len, model.text_dim))
        time = network.embed_timesteps(torch.tensor([500.0]))
        run = network.write_cache if clean else network.forward
        with counter:
            run(latents, time, prompt, attention=attention)
    works = roofline.clean_call(SMALL) if clean else roofline.call(SMALL)
    elementwise = ("norms", "gated sums", "add_norm", "norm_rope_append")
    expected = roofline.total_flops([work for work in works if work.name not in elementwise])
    assert counter.get_total_flops() == expected


def held(*tensors: Tensor) -> int:
    return sum(x.nbytes for x in tensors)


def test_kernels_move_the_bytes_of_their_tensors() -> None:
    """Each argument counted where it is read and where it is written, at the full size, on no device."""
    model, n, window = WAN.model, WAN.tokens, WAN.window
    with torch.device("meta"):
        rows = torch.empty(1, n, model.dim, dtype=torch.bfloat16)
        weight = torch.empty(model.dim, dtype=torch.bfloat16)
        rope = torch.empty(n, model.head_dim // 2, 2)
        keys = torch.empty(1, model.num_heads, window, model.head_dim, dtype=torch.bfloat16)
        master = torch.empty(1, model.num_heads, n, model.head_dim, dtype=torch.int16)
    q, k, v, sink, evicted = rows, rows, rows, rows, rows
    sink_update, append, attention, add_norm = roofline.kernels(WAN)
    assert add_norm.bytes == held(rows, rows, weight, weight, weight) + held(rows, rows)
    assert append.bytes == held(q, k, v, weight, weight, rope) + held(q, k, v)
    assert attention.bytes == held(q, keys, keys) + held(q)
    assert sink_update.bytes == 2 * (held(sink, evicted, master) + held(sink, master))
    wide = roofline.kernels(WAN, wide_master=True)[0]
    assert wide.bytes == 2 * (held(evicted, master.float()) + held(sink, master.float()))


def test_kernels_of_e4m3_move_the_bytes_of_their_tensors() -> None:
    model, n, window = WAN.model, WAN.tokens, WAN.window
    with torch.device("meta"):
        rows = torch.empty(1, n, model.dim, dtype=torch.bfloat16)
        narrow = torch.empty(1, n, model.dim, dtype=E4M3)
        hidden = torch.empty(1, n, model.ffn_dim, dtype=torch.bfloat16)
        scales = torch.empty(1, n, 1)
        weight = torch.empty(model.dim, dtype=torch.bfloat16)
        rope = torch.empty(n, model.head_dim // 2, 2)
        keys = torch.empty(1, model.num_heads, window, model.head_dim, dtype=E4M3)
        master = torch.empty(1, model.num_heads, n, model.head_dim)
    sink, append, attention, sums, quantised, activated = roofline.e4m3_kernels(WAN)
    assert sink.bytes == 2 * (held(narrow, master) + held(narrow, master))
    assert append.bytes == held(rows, rows, rows, weight, weight, rope) + held(rows, narrow, narrow)
    assert attention.bytes == held(rows, keys, keys) + held(rows)
    assert sums.bytes == held(rows, rows, weight, weight, weight) + held(rows, narrow, scales)
    assert quantised.bytes == held(rows) + held(narrow, scales)
    assert activated.bytes == held(hidden) + held(hidden.to(E4M3), scales)


def test_attention_in_e4m3_by_architecture() -> None:
    """At a full window it is bound by products: by the GPU's, or by those that `mma.sync` has there."""
    for device in E4M3_CEILINGS:
        found = roofline.attention_floors(WAN, device)
        assert found.wide / found.narrow == pytest.approx(device.e4m3_flops / device.flops)
        assert found.kernel == (found.narrow if device.has_e4m3_mma else found.wide)


def test_a_floor_is_the_larger_of_two() -> None:
    device = Ceiling(flops=100.0, bandwidth=10.0)
    computing, moving = Work("a", 500.0, 10.0, times=3), Work("b", 100.0, 70.0)
    assert (computing.floor(device), computing.bound(device)) == (15.0, "compute")
    assert (moving.floor(device), moving.bound(device)) == (7.0, "memory")
    assert roofline.total_floor([computing, moving], device) == 22.0


def test_refuses_a_frame_of_half_tokens() -> None:
    with pytest.raises(ValueError, match=r"multiples of 16 x 16, got 480 x 840"):
        Sizes.of(ModelConfig(), StreamConfig(), 480, 840)


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks"),
    [
        (128, 255, 0, 2),  # 8 warps of 8192 registers
        (128, 32, 96 * 1024, 2),  # 97 KiB each with what the system takes
        (256, 32, 0, 8),  # 2048 threads
        (32, 16, 0, 32),  # never more blocks than this
        (640, 58, 160, 1),  # 32 warps of registers, 20 a block
        (1024, 255, 0, 0),  # does not fit at all
    ],
)
def test_resident_blocks(threads: int, registers: int, shared: int, blocks: int) -> None:
    assert SM().resident_blocks(threads, registers, shared) == blocks
    assert SM().occupancy(threads, registers, shared) == blocks * threads / 2048


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: None)
    assert cli.run(["bench", "--roofline", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["compiler"].startswith("unknown: no compiler")
    assert [floor["model"] for floor in result["models"]] == list(roofline_table.MODELS)
    five = result["models"][-1]
    assert (five["model"], five["height"], five["width"]) == ("Wan2.2-TI2V-5B", 704, 1280)
    assert five["tokens"] == 3 * 22 * 40
    sizes = Sizes.of(wan22.MODELS[wan22.TI2V_5B], StreamConfig(), 704, 1280, wan22.LATENTS)
    assert five["tflop"] == pytest.approx(roofline.total_flops(roofline.chunk(sizes)) / 1e12)
    wan = result["models"][0]
    assert wan["tflop"] == pytest.approx(roofline.total_flops(roofline.chunk(WAN)) / 1e12)
    assert wan["floor_ms"] > wan["compute_ms"]
    assert all(line["registers"] is None for line in wan["lines"])
    assert cli.run(["bench", "--roofline"]) == 0
    text = capsys.readouterr().out
    assert "unknown: no compiler" in text
    assert "registers" not in text


def test_with_a_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What the compiler says of our kernels stands beside their floors; so does why it fails."""
    compiler = tmp_path / "nvcc"
    compiler.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{PTXAS}\nEND\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(nvcc, "find_nvcc", lambda: str(compiler))
    report = roofline_table.report()
    line = next(line for line in report.models[0].lines if line.name == "ring_attention")
    dynamic = Instance("ring_attention", "bfloat16", 128).block(heads=12)[1]
    assert (line.registers, line.shared, line.spills) == (255, 1024 + dynamic, 96)
    assert line.occupancy == 2 * 128 / 2048
    roofline_table.show(report)
    assert "occupancy" in capsys.readouterr().out
    compiler.write_text("#!/bin/sh\necho 'error: no such architecture' >&2\nexit 1\n")
    failed = roofline_table.report()
    assert failed.compiler.startswith("unknown: nvcc add_norm.cu failed")
    assert "no such architecture" in failed.compiler
    assert failed.models[0].floor_ms == report.models[0].floor_ms


def test_the_report_needs_no_torch() -> None:
    """It comes at once where there is no compiler."""
    code = "import sys, pyrf.reports.roofline_table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", MODELS)
def test_a_change_of_strength_costs_less_than_a_chunk(name: str) -> None:
    """With every product of the blocks adapted, at the largest rank in use, and with the base on the CPU."""
    model, device = MODELS[name], Ceiling()
    floor = roofline.total_floor(roofline.chunk(Sizes.of(model, StreamConfig(), 480, 832)), device)
    assert 0 < roofline.merge_floor(model, 32, device) < 0.2 * floor
    assert roofline.merge_floor(model, 256, device) < floor
    assert roofline.merge_floor(model, 32, device, from_cpu=True) < floor
    with torch.device("meta"):
        blocks = WanModel(replace(model, num_layers=1)).blocks[0]
    products = [p for key, p in blocks.named_parameters() if key.endswith("weight") and p.ndim == 2]
    weights = model.num_layers * sum(product.numel() for product in products)
    expected = 64 * weights / device.wide_flops + 20 * weights / device.bandwidth
    assert roofline.merge_floor(model, 32, device) == pytest.approx(expected)


class CountingExchange(Exchange):
    """Rank 0 of several that are not there: what it would send is counted, what it would get is noise."""

    def __init__(self, ranks: int) -> None:
        self.rank, self.ranks, self.sent = 0, ranks, 0

    def _all_to_all(self, x: Tensor, sent: list[int], received: list[int]) -> Tensor:
        if x.ndim < 5:  # a flow, of which a roofline knows nothing
            self.sent += sum(sent[1:]) * x[0].numel() * roofline.ELEMENT
        return x.new_ones(sum(received), *x.shape[1:])


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_send_what_the_roofline_counts(ranks: int) -> None:
    config, size = replace(networks.MODEL, dim=72, num_heads=6), LatentSize(4, 6)
    bands = Bands.of(size, ranks)
    sizes = replace(Sizes.of(config, StreamConfig(), 32, 48), ranks=ranks, share=bands.largest_share)
    exchange = CountingExchange(ranks)
    prompt = torch.zeros(1, config.text_len, config.text_dim, dtype=torch.float32, device="cpu")
    rollout = SplitRollout(networks.dit(config), StreamConfig(), 1, size, prompt, None, exchange)
    rollout.begin_chunk()
    rollout.denoise(torch.zeros(1, *rollout.shape, dtype=torch.float32, device="cpu"), 500.0)
    assert exchange.sent == roofline.total_sent(roofline.call(sizes))
    assert rollout.cache.keys[0].numel() * 4 * config.num_layers == sizes.cache_bytes


def test_a_split_shares_out_all_work_but_the_exchange() -> None:
    """Of Wan, whose bands are even; the norms' weights and the table are every rank's."""
    whole = roofline.total_flops(roofline.chunk(WAN))
    for ranks in (2, 3, 4, 6):
        works = roofline.chunk(replace(WAN, ranks=ranks, share=1 / ranks))
        assert ranks * roofline.total_flops(works) == pytest.approx(whole, rel=1e-3)
        assert {work.bound(Ceiling()) for work in works if work.sent} == {"link"}


def test_which_counts_fit() -> None:
    floors = {floor.model: floor for floor in roofline_table.report().models}
    fitting = {name: [s.gpus for s in floor.splits if not s.why_not] for name, floor in floors.items()}
    assert fitting["Wan2.1-T2V-1.3B"] == [2, 3, 4, 6]
    assert fitting["Wan2.1-T2V-14B"] == [2, 4, 5, 8]
    assert all("heads cannot be shared" in s.why_not for f in floors.values() for s in f.splits if s.why_not)
