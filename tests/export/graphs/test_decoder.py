"""Exported decoders: chunk by chunk they give what torch gives of the whole."""

import pytest
import torch

from pyrf.backends.onnxruntime.rollout import OnnxDecoder
from pyrf.backends.onnxruntime.sessions import GraphSet
from pyrf.config import LatentSize, StreamConfig
from pyrf.export.exporter import ExportWriter
from pyrf.export.graphs.decoder import decoder_graphs
from pyrf.export.manifest import load_manifest
from pyrf.models.codecs.wan22_vae import CONFIG, Wan22VAE
from pyrf.models.codecs.wan_vae import WanVAE, build_network
from tests.support import networks

HEIGHT, WIDTH = 4, 6


@pytest.fixture(scope="module", params=["taehv", "wan", "wan22"])
def codec(request):
    if request.param == "taehv":
        return networks.codec()
    return wan_vae() if request.param == "wan" else wan22_vae()


def wan_vae(dtype: torch.dtype = torch.float32, width: int = 8) -> WanVAE:
    """Every kind of layer that Wan's has, few of each: tracing takes its time."""
    network = build_network({"base_dim": width, "z_dim": 16, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1})
    return WanVAE(networks.randomise(network), decoder_dtype=dtype)


def wan22_vae() -> Wan22VAE:
    means = {"latents_mean": [0.0] * 16, "latents_std": [1.0] * 16}
    small = {"base_dim": 4, "decoder_base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 2], "num_res_blocks": 1}
    small["temperal_downsample"] = [True, True]
    return Wan22VAE(networks.randomise(build_network({**CONFIG, **small, **means})))


def exported(codec, folder, chunk):
    folder.mkdir()
    writer = ExportWriter(folder)
    writer.add(decoder_graphs(codec, chunk, LatentSize(HEIGHT, WIDTH)), "decoder.weights")
    writer.finish(
        dtype="float32",
        fp8=False,
        model=networks.MODEL,
        stream=StreamConfig(chunk_frames=chunk, window_frames=3 * chunk, sink_frames=chunk),
        size=LatentSize(HEIGHT, WIDTH),
        weights="",
    )
    return GraphSet(folder, load_manifest(folder), threads=1)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunk_by_chunk_equals_the_whole(codec, tmp_path, chunk):
    graphs = exported(codec, tmp_path / "export", chunk)
    latents = torch.randn(
        2, 4 * chunk, codec.latent_channels, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)
    )
    whole = codec.decoder().decode(latents)
    decoder = OnnxDecoder(graphs, codec, batch=2)
    frames = torch.cat([decoder.decode(x) for x in latents.split([chunk, 2 * chunk, chunk], 1)], 1)
    assert frames.shape == whole.shape
    assert (frames.int() - whole.int()).abs().max() <= 1
    assert (frames != whole).float().mean() < 1e-3
    assert len(frames[0]) == 4 * 4 * chunk - 3
    if chunk > 1:
        with pytest.raises(ValueError, match=f"whole chunks of {chunk} latent frames, got {chunk + 1}"):
            decoder.decode(latents[:, : chunk + 1])
