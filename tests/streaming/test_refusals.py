"""Prompts, arguments and models that are refused, each in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyrf.pipeline import StreamingPipeline
from tests.support.random_bundle import TEXT_LEN
from tests.support.taking import RED

LONG = "word " * 10_000


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        (" \n\t", "prompt is empty"),
        (LONG, f"10000 words, which is more than the {TEXT_LEN} tokens"),
        (None, "got NoneType"),
        (7, "got int"),
        (b"bytes", "got bytes"),
        ([], "list of prompts is empty"),
        (["a", ""], "prompt is empty"),
        (["a", 7], "got int"),
        ({}, "a weighted prompt has 1 to 8 texts, got 0"),
    ],
)
def test_bad_prompts(pipe: StreamingPipeline, prompt: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        pipe(prompt, num_frames=9)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200
    with pipe.stream(RED) as stream:
        with pytest.raises(ValueError, match=r"prompt"):
            stream.prompt = prompt
        assert stream.prompt == RED
        assert next(stream).prompt == RED


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"num_frames": -5}, "num_frames must be at least 1, got -5"),
        ({"num_frames": 8.5}, "num_frames must be a whole number, got 8.5"),
        ({"seed": -1}, "seed must lie in 0.."),
        ({"seed": 2**63}, "seed must lie in 0.."),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"seed": [1]}, "seed must be a whole number"),
        ({"prompt": ["a", "b"], "seed": [1]}, "one for each of 2 prompts, got 1"),
        ({"height": 30}, "height must be a positive multiple of 16, got 30; try 32"),
        ({"width": 0}, "width must be a positive multiple of 16, got 0; try 16"),
        ({"height": 16 * 2**70}, "height must be at most 16384 pixels, got 18889"),
        ({"width": "48"}, "width must be a whole number"),
        ({"height": 16400}, "height must be at most 16384 pixels, got 16400"),
        ({"width": 10**400}, "width must be at most 16384 pixels"),
        ({"image": np.zeros((32, 32, 3), np.uint8), "fit": "refuse"}, "must be 32 x 48, got 32 x 32"),
        (
            {"image": np.zeros((32, 48, 3), np.uint8), "fit": "stretch"},
            "fit must be one of crop, pad, refuse",
        ),
        ({"image": np.zeros((32, 48), np.uint8)}, r"image must be \[H, W, 3\], got \[32, 48\]"),
        ({"image": "nowhere.png"}, "cannot read nowhere.png: there is no such file"),
        (
            {"image": np.zeros((32, 48, 3), np.uint8), "start": "first"},
            "start must be one of still, first_frame",
        ),
        ({"start": "still"}, "says how an image begins the stream, and there is none"),
        (
            {"video": np.zeros((9, 32, 48, 3), np.uint8), "start": "first_frame"},
            "there is a video, which is always continued",
        ),
        ({"video": np.zeros((9, 32, 32, 3), np.uint8)}, "size of the stream, 32 x 48 x 3, got 32 x 32 x 3"),
        ({"image": np.full((32, 48, 3), 7.0)}, r"image must lie in 0\.\.1 where it is floats, got 7\.\.7"),
        ({"image": np.full((32, 48, 3), np.nan)}, r"image must lie in 0\.\.1 where it is floats, got nan"),
        ({"image": np.zeros((32, 48, 3), int)}, r"image must be uint8 0\.\.255, uint16 0\.\.65535 or floats"),
        ({"video": np.zeros((0, 32, 48, 3), np.uint8)}, r"video must be \[T, H, W, 3\]"),
        ({"video": np.zeros((32, 48, 3), np.uint8)}, r"video must be \[T, H, W, 3\]"),
        (
            {"image": np.zeros((32, 48, 3), np.uint8), "video": np.zeros((9, 32, 48, 3), np.uint8)},
            "not both",
        ),
    ],
)
def test_bad_arguments(pipe: StreamingPipeline, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        pipe(**{"prompt": RED, "num_frames": 9, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"dtype": "float16"}, "dtype float16 is for the tensorrt backend alone; give float32 or bfloat16"),
        ({"precision": "fp7"}, "precision must be fp8-attention or fp8, or left out, got 'fp7'"),
        (
            {"precision": "fp8", "backend": "onnxruntime"},
            "precision fp8 is for the torch backend, got onnxruntime; take precision fp8-attention, or",
        ),
        ({"device": "warp"}, "device must be cpu, cuda"),
        ({"device": "meta"}, "device must be cpu, cuda"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"backend": "abacus"}, "backend must be one of torch, onnxruntime, tensorrt, got 'abacus'"),
        ({"stream": "window=4"}, "window_frames must be a multiple of chunk_frames"),
        ({"stream": "window=3"}, "window_frames must be a multiple of chunk_frames"),
        ({"stream": {"window": 4098}}, "window_frames must be at most 4096, got 4098"),
        ({"stream": "window_frames=9.0"}, "window_frames must be a whole number, got 9.0"),
        ({"name": "nowhere"}, "nowhere"),
    ],
)
def test_bad_loading(random_bundle: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        StreamingPipeline.from_pretrained(**{"name": str(random_bundle), **arguments})
    assert "\n" not in str(error.value)
