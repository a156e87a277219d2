"""The nodes for ComfyUI: by their interface, and by workflows that are executed node by node."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pyrf.pipeline import StreamingPipeline
from pyrf.streaming.restyle import Source
from tests.support import adapters
from tests.support.comfyui import FOLDER, as_prompt, execute, inputs_of, load_pack

PROMPT, BLUE = "a red circle", "a blue square"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def nodes() -> dict[str, Any]:
    return load_pack().NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def pipe(random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle))


def frames_of(images: torch.Tensor) -> np.ndarray:
    assert (images.dtype, images.device.type) == (torch.float32, "cpu")
    assert images.ndim == 4
    assert 0 <= images.min() <= images.max() <= 1
    return (images.numpy() * 255).round().astype(np.uint8)


def stream(nodes: Any, pipe: StreamingPipeline, **inputs: Any) -> np.ndarray:
    """Frames of the node, of 15 frames unless another length is given."""
    given = {"prompt": PROMPT, "seconds": 15 / pipe.fps, "seed": 6, "timeline": "", "height": 0, "width": 0}
    images, fps = nodes["PyrfStreamVideo"]().make(pipe, **{**given, **inputs})
    assert fps == pipe.fps
    return frames_of(images)


def test_the_interface(nodes: dict[str, Any]) -> None:
    pack = load_pack()
    assert pack.NODE_DISPLAY_NAME_MAPPINGS.keys() == nodes.keys()
    for node in nodes.values():
        taken = list(inspect.signature(getattr(node, node.FUNCTION)).parameters)[1:]
        assert taken == list(inputs_of(node))
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
        assert node.CATEGORY == "pyrf"
        for kind, *options in inputs_of(node).values():
            assert isinstance(kind, str | list)
            assert all(isinstance(one, dict) for one in options)


class CreateVideo:
    """ComfyUI's own, as far as its interface goes; so are those below."""

    RETURN_TYPES, FUNCTION = ("VIDEO",), "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        fps = ("FLOAT", {"min": 1.0, "max": 120.0})
        return {"required": {"images": ("IMAGE",), "fps": fps}, "optional": {"audio": ("AUDIO",)}}

    def make(self, images: torch.Tensor, fps: float) -> tuple[Any]:
        return ((images, None, fps),)


class SaveVideo:
    RETURN_TYPES, FUNCTION = (), "save"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        kinds: dict[str, Any] = {"video": ("VIDEO",), "filename_prefix": ("STRING", {})}
        return {"required": {**kinds, "format": (["auto", "mp4"],), "codec": (["auto", "h264"],)}}

    def save(self, video: Any, **_: Any) -> tuple[Any]:
        return (video,)


class GetVideoComponents:
    RETURN_TYPES, FUNCTION = ("IMAGE", "AUDIO", "FLOAT"), "split"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"video": ("VIDEO",)}}

    def split(self, video: Any) -> Any:
        return video


@pytest.fixture(scope="module")
def tiny() -> StreamingPipeline:
    return StreamingPipeline.from_pretrained("tiny")


def core_nodes(clip: Any = None) -> dict[str, Any]:
    class LoadVideo:
        RETURN_TYPES, FUNCTION = ("VIDEO",), "load"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
            return {"required": {"file": (["clip.mp4"], {})}}

        def load(self, file: str) -> tuple[Any]:
            return (clip,)

    return {
        "CreateVideo": CreateVideo,
        "SaveVideo": SaveVideo,
        "GetVideoComponents": GetVideoComponents,
        "LoadVideo": LoadVideo,
    }


def test_the_workflow_of_a_first_stream(nodes: dict[str, Any]) -> None:
    """Of the valley, on which night falls."""
    all_nodes = {**nodes, **core_nodes()}
    prompt = as_prompt(json.loads((FOLDER / "workflows" / "first_stream.json").read_text()), all_nodes)
    given = prompt["2"]["inputs"]
    given["seconds"] = 3.5
    ((images, _, fps),) = execute(prompt, all_nodes)["4"]
    valley = StreamingPipeline.from_pretrained(prompt["1"]["inputs"]["model"])
    assert fps == valley.fps
    time, later = given["timeline"].split(":")
    wanted = valley(given["prompt"], num_frames=56, seed=given["seed"], timeline={time: later})
    np.testing.assert_array_equal(frames_of(images), wanted.frames)
    assert frames_of(images[-6:]).mean() < frames_of(images[:6]).mean()


def test_the_workflow_that_restyles(nodes: dict[str, Any], tiny: StreamingPipeline) -> None:
    """Its video has another rate and size, and an alpha channel."""
    clip = np.kron(tiny(BLUE, num_frames=24, seed=0).frames, np.ones((1, 2, 2, 1), np.uint8))
    with_alpha = torch.cat([torch.from_numpy(clip).float() / 255, torch.ones(*clip.shape[:3], 1)], dim=-1)
    all_nodes = {**nodes, **core_nodes((with_alpha, None, 32.0))}
    prompt = as_prompt(json.loads((FOLDER / "workflows" / "restyle_video.json").read_text()), all_nodes)
    ((images, _, fps),) = execute(prompt, all_nodes)["6"]
    given = prompt["4"]["inputs"]
    source = Source(iter(clip), fps=32.0, at_end="stop")
    with tiny.stream(given["prompt"], given["seed"], source=source, strength=given["strength"]) as wanted:
        expected = np.concatenate([next(wanted).frames for _ in range(2)])[:12]
    assert fps == tiny.fps
    np.testing.assert_array_equal(frames_of(images), expected)


def test_every_workflow_is_executed_above() -> None:
    assert [path.name for path in WORKFLOWS] == ["first_stream.json", "restyle_video.json"]


def test_one_image_begins_and_several_are_continued(nodes: dict[str, Any], pipe: StreamingPipeline) -> None:
    clip = pipe(BLUE, num_frames=9, seed=2).frames
    images = torch.from_numpy(clip).float() / 255
    options: dict[str, Any] = {"num_frames": 15, "seed": 6}
    begun = stream(nodes, pipe, images=images[-1:])
    np.testing.assert_array_equal(begun, pipe(PROMPT, image=clip[-1], **options).frames)
    continued = stream(nodes, pipe, images=images, timeline="0.5:a blue square")
    wanted = pipe(PROMPT, video=clip, timeline={"0.5": BLUE}, **options).frames
    np.testing.assert_array_equal(continued, wanted)
    large = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2), scale_factor=2.0, mode="nearest")
    fitted = stream(nodes, pipe, images=large.permute(0, 2, 3, 1), timeline="0.5:a blue square")
    assert fitted.shape == continued.shape
    assert np.abs(fitted.astype(int) - continued).mean() < 2


def test_the_size_of_frames(nodes: dict[str, Any], pipe: StreamingPipeline) -> None:
    height, width = pipe.height * 2, pipe.width * 2
    made = stream(nodes, pipe, height=height, width=width)
    assert made.shape == (15, height, width, 3)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"timeline": "5:a blue square"}, "outside"),
        ({"height": 33}, "height"),
        ({"images": torch.zeros(0, 32, 32, 3)}, r"one frame at least, got \[0, 32, 32, 3\]"),
        ({"images": torch.zeros(2, 32, 32)}, r"got \[2, 32, 32\]"),
        ({"prompt": " "}, "prompt"),
    ],
)
def test_bad_inputs(nodes: dict[str, Any], pipe: StreamingPipeline, inputs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        stream(nodes, pipe, **inputs)


@pytest.mark.parametrize(
    ("timeline", "said"),
    [
        ("", True),
        ("2.5:a blue square\n\n 1:30: a red circle \n", True),
        ("a blue square", "TIME:PROMPT is needed"),
        ("1:a\n1:b", "two prompts at 1"),
    ],
)
def test_a_timeline_is_looked_at_before_the_run(nodes: dict[str, Any], timeline: str, said: Any) -> None:
    answer = nodes["PyrfStreamVideo"].VALIDATE_INPUTS(timeline=timeline)
    assert answer is True if said is True else said in answer


@pytest.fixture
def file(tmp_path: Path, random_bundle: Path) -> Path:
    path = tmp_path / "ink.safetensors"
    save_file(adapters.keys("comfy", adapters.factors(adapters.LINEARS)), path)
    return path


def load(node: Any, bundle: Path, given: Any = ()) -> StreamingPipeline:
    return node.load(str(bundle), "", "auto", "float32", "", given)[0]


def test_adapters(nodes: dict[str, Any], random_bundle: Path, file: Path) -> None:
    loader, adapter = nodes["PyrfLoadModel"](), nodes["PyrfAdapter"]()
    pipe = load(loader, random_bundle, *adapter.add(str(file), 0.25))
    fresh = StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(file, 0.75)])
    assert load(loader, random_bundle, *adapter.add(str(file), 0.75)) is pipe  # nothing is read again
    np.testing.assert_array_equal(stream(nodes, pipe), fresh(PROMPT, num_frames=15, seed=6).frames)
    before = adapter.IS_CHANGED(str(file), strength=0.75)
    save_file(adapters.keys("comfy", adapters.factors(adapters.LINEARS, seed=1)), file)
    assert adapter.IS_CHANGED(str(file), strength=0.75) != before
    again = load(loader, random_bundle, *adapter.add(str(file), 0.75))
    assert again is not pipe
    assert not np.array_equal(stream(nodes, again), stream(nodes, pipe))
    two = adapter.add(str(file), 1.0, *adapter.add("other.safetensors", 0.5))
    assert two == ((("other.safetensors", 0.5, None), (str(file), 1.0, None)),)
    with pytest.raises(ValueError, match="name an adapter"):
        adapter.add(" ", 1.0)


def test_a_load_that_fails_leaves_nothing_stale(nodes: dict[str, Any], random_bundle: Path) -> None:
    loader = nodes["PyrfLoadModel"]()
    pipe = load(loader, random_bundle)
    with pytest.raises(ValueError, match="nowhere"):
        load(loader, Path("./nowhere"))
    assert load(loader, random_bundle) is not pipe


class Interrupted(Exception):  # noqa: N818
    """What ComfyUI's hook raises when Cancel is pressed."""


@pytest.fixture
def in_comfyui(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The pack beside modules of ComfyUI's names; what its bar is told."""
    told: list[Any] = []

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: Any = None, preview: Any = None) -> None:
            told.append((value, self.total, preview))
            if told[0] == "cancel":
                raise Interrupted

    comfy, utils = ModuleType("comfy"), ModuleType("comfy.utils")
    comfy.model_management = SimpleNamespace(get_torch_device=lambda: torch.device("cpu"))  # type: ignore[attr-defined]
    utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
    paths = ModuleType("folder_paths")
    paths.get_full_path = lambda kind, name: (  # type: ignore[attr-defined]
        f"/models/{kind}/{name}" if name == "ink.safetensors" else None
    )
    for module in (comfy, utils, paths):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    yield told
    for name in [name for name in sys.modules if name.startswith("pyrf_in_comfyui")]:
        del sys.modules[name]


def test_previews_and_a_cancelled_run(pipe: StreamingPipeline, in_comfyui: list[Any]) -> None:
    nodes = load_pack("pyrf_in_comfyui").NODE_CLASS_MAPPINGS
    made = stream(nodes, pipe)
    assert [(value, total) for value, total, _ in in_comfyui] == [(9, 15), (15, 15)]
    for (kind, image, size), frame in zip((preview for *_, preview in in_comfyui), (made[8], None)):
        assert (kind, size) == ("JPEG", 512)
        assert isinstance(image, Image.Image)
        if frame is not None:
            np.testing.assert_array_equal(np.asarray(image), frame)
    in_comfyui[:] = ["cancel"]
    with pytest.raises(Interrupted):
        stream(nodes, pipe, seconds=1000.0)
    assert len(in_comfyui) == 2


def test_files_of_comfyuis_folders(in_comfyui: list[Any], random_bundle: Path) -> None:
    nodes = load_pack("pyrf_in_comfyui").NODE_CLASS_MAPPINGS
    ((given,),) = nodes["PyrfAdapter"]().add("ink.safetensors", 1.0)
    assert given[0] == "/models/loras/ink.safetensors"
    ((given,),) = nodes["PyrfAdapter"]().add("other.safetensors", 1.0)
    assert given[0] == "other.safetensors"
    assert load(nodes["PyrfLoadModel"](), random_bundle).model.device.type == "cpu"
