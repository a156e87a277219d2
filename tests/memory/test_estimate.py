"""Bills of memory beside what was measured, and beside the objects that are counted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pyrf.bundle import load_bundle, save_bundle
from pyrf.config import LatentSize, ModelConfig, StreamConfig
from pyrf.loop.cache import SinkRingCache
from pyrf.memory.bill import GIB, Bill, MemoryRow
from pyrf.memory.estimate import Estimator
from pyrf.memory.setup import Setup
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.models.text.umt5 import UMT5Config
from tests.support import networks
from tests.support.unloaded import GPU, wan_bundle

ON_GPU = Setup(torch.bfloat16, GPU, StreamConfig())


def part(bill: Bill, name: str) -> int:
    rows = [row.bytes for row in (*bill.held, *bill.work, *bill.host) if row.part == name]
    return rows[0]


@pytest.mark.parametrize(("codec", "measured"), [("taehv", 7.3), ("wan", 13.1)])
def test_wan_beside_the_peaks_of_an_h100(codec: str, measured: float) -> None:
    """Measured by `pyrf bench` on random weights, docs/benchmarks.md."""
    assert Estimator(wan_bundle(codec)).bill(ON_GPU).peak / GIB == pytest.approx(measured, rel=0.1)


def test_14b_beside_the_peak_of_an_h100() -> None:
    """Measured by benchmarks/full_size.py, which has neither codec nor text encoder."""
    bill = Estimator(wan_bundle("taehv", "14B")).bill(ON_GPU)
    rows = ("network", "ring", "sink's hidden bits", "prompt", "denoising")
    assert sum(part(bill, row) for row in rows) / GIB == pytest.approx(41.9, rel=0.1)


def test_umt5_xxl_adds_what_it_weighs() -> None:
    bill = Estimator(wan_bundle("taehv", text=UMT5Config())).bill(ON_GPU)
    assert part(bill, "text encoder") / GIB == pytest.approx(10.6, rel=0.01)


def test_each_measure_takes_less() -> None:
    estimator = Estimator(wan_bundle("wan", text=UMT5Config()))
    as_it_is = estimator.bill(ON_GPU)
    on_cpu = estimator.bill(replace(ON_GPU, text="cpu"))
    assert as_it_is.peak - on_cpu.peak == part(as_it_is, "text encoder") == part(on_cpu, "text encoder")
    assert [row.part for row in on_cpu.host] == ["text encoder"]
    freed = estimator.bill(replace(ON_GPU, text="freed"))
    assert on_cpu.peak < freed.peak < as_it_is.peak
    assert part(freed, "encoding a prompt") > part(as_it_is, "text encoder")
    assert part(estimator.bill(replace(ON_GPU, by_frame=True)), "decoding") < part(as_it_is, "decoding") / 2
    narrow = replace(ON_GPU, stream=StreamConfig(window_frames=6))
    assert part(estimator.bill(narrow), "ring") == part(as_it_is, "ring") * 2 // 3


def test_what_8_bits_take() -> None:
    """The ring halves and the sink's float32 doubles; weights halve once they are rounded."""
    estimator = Estimator(wan_bundle("taehv"))
    wide, attention, both = (
        estimator.bill(replace(ON_GPU, precision=name)) for name in (None, "fp8-attention", "fp8")
    )
    assert part(wide, "ring") == 2 * part(attention, "ring") == 2 * part(both, "ring")
    assert 2 * part(wide, "sink's hidden bits") == part(attention, "sink's hidden bits")
    assert part(wide, "network") == part(attention, "network")
    assert 0.5 < part(both, "network") / part(wide, "network") < 0.6
    assert part(both, "network") + part(both, "rounding weights") == part(wide, "network")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ring_is_the_cache_s(random_bundle: Path, dtype: torch.dtype) -> None:
    bundle = load_bundle(random_bundle)
    bill = Estimator(bundle).bill(Setup(dtype, torch.device("cpu"), bundle.stream_config))
    stride = bundle.codec().spatial_stride
    cache = SinkRingCache(
        bundle.model_config,
        bundle.stream_config,
        batch=1,
        size=LatentSize(bundle.height // stride, bundle.width // stride),
        dtype=dtype,
        device="cpu",
    )
    assert part(bill, "ring") == sum(x.nbytes for x in (*cache.keys, *cache.values))
    masters = (*(cache.key_masters or ()), *(cache.value_masters or ()))
    hidden = [row.bytes for row in bill.held if row.part == "sink's hidden bits"]
    assert sum(hidden) == sum(x.nbytes for x in masters)


def test_weights_are_those_that_are_loaded(random_bundle: Path) -> None:
    bundle, cpu = load_bundle(random_bundle), torch.device("cpu")
    bill = Estimator(bundle).bill(Setup(torch.bfloat16, cpu, bundle.stream_config))
    loaded = {
        "network": bundle.transformer(torch.bfloat16),
        "codec": bundle.codec(torch.bfloat16).network,  # type: ignore[attr-defined]
        "text encoder": bundle.text_encoder(torch.bfloat16).network,
    }
    for name, network in loaded.items():
        assert part(bill, name) == sum(p.nbytes for p in network.parameters())


def test_the_line_says_what_the_rows_say() -> None:
    held = [MemoryRow("network", 3 * GIB, ""), MemoryRow("prompt", 1000, "")]
    bill = Bill("cuda:0", held, [MemoryRow("denoising", GIB, ""), MemoryRow("decoding", 2 * GIB, "")])
    assert bill.peak == 5 * GIB + 1000
    assert bill.line(6 * GIB).startswith(
        "memory: network 3.0 GiB, and 2.0 GiB while decoding: peak 5.0 GiB on cuda:0 with 6.0 GiB free"
    )
    assert "not known" in bill.line(None)


def measured_peak(path: Path | str, *options: str) -> dict[str, int]:
    """An estimate, and the peak of a process that streams; options as `tests.memory.measure_stream` has."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.memory.measure_stream", str(path), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, int] = json.loads(ran.stdout)
    return found


def medium_bundle(path: Path, codec: TAEHVCodec | None = None, height: int = 112, width: int = 160) -> Path:
    """A third of a GiB of weights, cache and frames beside what a process has anyway."""
    config = ModelConfig(
        dim=768, ffn_dim=3072, num_heads=6, num_layers=8, text_len=8, text_dim=16, freq_dim=32
    )
    codec = codec or TAEHVCodec(networks.randomise(TAEHV(TAEHVConfig(decoder_widths=(32, 32, 32, 64)))))
    return save_bundle(
        path,
        transformer=networks.dit(config),
        codec=codec,
        text_encoder=networks.text_encoder(),
        stream_config=StreamConfig(denoising_steps=(1000,)),
        height=height,
        width=width,
    )


def test_a_medium_network_beside_its_measured_peak(tmp_path: Path) -> None:
    """Resident memory of a process, or a GPU's allocated memory where there is one: within 10 %."""
    found = measured_peak(medium_bundle(tmp_path / "medium"))
    assert found["peak"] == pytest.approx(found["measured"], rel=0.1)
    if found["loading"]:
        assert found["loading"] == pytest.approx(found["measured_loading"], rel=0.1)


@pytest.mark.slow
def test_wide_frames_beside_their_measured_peak(tmp_path: Path) -> None:
    """The same where decoding is most of it."""
    codec = TAEHVCodec(networks.randomise(TAEHV()))
    found = measured_peak(medium_bundle(tmp_path / "wide", codec, 224, 320))
    assert found["peak"] == pytest.approx(found["measured"], rel=0.1)
