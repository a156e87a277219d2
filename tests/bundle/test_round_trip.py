"""Whatever sizes a model has, a saved bundle gives them back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pyrf.bundle import load_bundle, save_bundle
from pyrf.bundle.settings import BundleSettings
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.codecs.taehv import TAEHV, TAEHVCodec, TAEHVConfig
from pyrf.models.text.encoder import TextEncoder
from tests.support import networks
from tests.support.bundle_checks import same

TEXT = networks.text_encoder()


@st.composite
def model_configs(draw: Any) -> ModelConfig:
    heads = draw(st.integers(1, 4))
    return ModelConfig(
        dim=heads * 2 * draw(st.integers(3, 8)),
        ffn_dim=draw(st.integers(1, 32)),
        num_heads=heads,
        num_layers=draw(st.integers(1, 3)),
        text_len=draw(st.integers(1, 600)),
        text_dim=networks.TEXT.dim,
        freq_dim=2 * draw(st.integers(1, 16)),
        in_channels=(channels := draw(st.integers(1, 20))),
        out_channels=channels,
        eps=draw(st.sampled_from([1e-6, 1e-5])),
        rope_theta=draw(st.floats(1.0, 1e6)),
    )


@st.composite
def stream_configs(draw: Any) -> StreamConfig:
    chunk = draw(st.integers(1, 5))
    sink = draw(st.sampled_from([0, chunk]))
    return StreamConfig(
        chunk_frames=chunk,
        window_frames=sink + chunk * draw(st.integers(1, 6)),
        sink_frames=sink,
        sink_alpha=draw(st.floats(0, 1)),
        denoising_steps=tuple(sorted(draw(st.sets(st.integers(1, 1000), min_size=1, max_size=5)))[::-1]),
        shift=draw(st.floats(0.5, 12)),
    )


@settings(max_examples=12)
@given(
    config=model_configs(),
    stream=stream_configs(),
    fps=st.floats(1, 120),
    sides=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
)
def test_a_bundle_of_any_sizes(
    config: ModelConfig, stream: StreamConfig, fps: float, sides: tuple[int, int]
) -> None:
    transformer = networks.dit(config)
    codec_config = TAEHVConfig(
        latent_channels=config.in_channels, encoder_width=2, decoder_widths=(2, 2, 2, 2), blocks=1
    )
    with tempfile.TemporaryDirectory() as folder:
        path = save_bundle(
            Path(folder) / "any",
            transformer=transformer,
            codec=TAEHVCodec(TAEHV(codec_config), fps=fps),
            text_encoder=TextEncoder(TEXT.network, TEXT.tokenizer, config.text_len),
            stream_config=stream,
            height=sides[0],
            width=sides[1],
        )
        loaded = load_bundle(path)
        assert loaded.model_config == config
        assert loaded.stream_config == stream
        assert (loaded.fps, loaded.height, loaded.width) == (fps, *sides)
        assert same(loaded.transformer().state_dict(), transformer.state_dict())
        assert loaded.codec().latent_channels == config.in_channels
        assert loaded.text_encoder().text_len == config.text_len


@given(stream=stream_configs(), fps=st.floats(1, 120))
def test_settings(stream: StreamConfig, fps: float) -> None:
    written = BundleSettings(stream=stream, fps=fps)
    read = BundleSettings.from_dict(
        written.to_dict() | {"denoising_steps": [*stream.denoising_steps]}, Path()
    )
    assert read == written
