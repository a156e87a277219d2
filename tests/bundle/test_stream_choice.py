"""How a model is asked to stream: presets, files, settings one by one; and what is refused."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyrf.bundle import load_bundle
from pyrf.bundle.contents import published_name
from pyrf.bundle.stream_choice import (
    MAX_BYTES,
    TRAINED_FRAMES,
    StreamAsked,
    StreamChoice,
    presets,
    stream_choice,
    whole_window,
)
from pyrf.config import ModelConfig, StreamConfig
from pyrf.pipeline import StreamingPipeline
from tests.support.bundle_checks import edit, refused
from tests.support.networks import STREAM, dit

FOUR = (1000, 750, 500, 250)
PUBLISHED = {
    "reward-forcing": StreamConfig(),
    "self-forcing": StreamConfig(3, 21, 0, 1),
    "causal-forcing-chunkwise": StreamConfig(3, 21, 0, 1),
    "causal-forcing-framewise": StreamConfig(1, 21, 0, 1),
    "causal-forcing-framewise-2step": StreamConfig(1, 21, 0, 1, (1000, 500), first_chunk_steps=FOUR),
    "causal-forcing-framewise-1step": StreamConfig(1, 21, 0, 1, (1000,), first_chunk_steps=FOUR),
    "longlive-2": StreamConfig(8, 32, 8, 1, sampler="unipc"),
}
"""As their papers and code have it."""


def applied(*asked: Any, to: StreamConfig | None = None) -> StreamConfig:
    return stream_choice(list(asked)).applied(to or STREAM)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_whole_and_as_published(name: str) -> None:
    """Nothing of the model's own way is left."""
    assert presets().keys() == PUBLISHED.keys()
    assert applied(name, to=STREAM) == applied(name, to=StreamConfig()) == PUBLISHED[name]
    assert stream_choice(name).fps == (24 if name == "longlive-2" else 16)
    for model in presets()[name]["models"]:
        assert model in {published_name(1536, 30), published_name(3072, 30)}


def test_a_window_without_end_is_what_was_seen_in_training() -> None:
    for chunk in range(1, 25):
        window = whole_window(chunk)
        assert window % chunk == 0
        assert 0 <= window - TRAINED_FRAMES < chunk
        assert applied(f"chunk_frames={chunk}", "sink=0", "window=none").window_frames == window
    assert applied("window=none").window_frames == 22  # of the model's own chunks, of 2 frames


CONFIGS = st.builds(
    lambda chunk, slots, sink, alpha, steps, first, shift, sampler: StreamConfig(
        chunk, chunk * (slots + 1), sink * chunk, alpha, steps, shift, first, sampler
    ),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(0, 1),
    st.floats(0, 1),
    *(
        st.sets(st.integers(1, 1000), min_size=1, max_size=5).map(lambda s: tuple(sorted(s, reverse=True)))
        for _ in range(2)
    ),
    st.floats(0.01, 100),
    st.sampled_from(["renoise", "unipc"]),
)


@given(config=CONFIGS)
def test_every_setting_can_be_given_in_every_way(
    tmp_path_factory: pytest.TempPathFactory, config: StreamConfig
) -> None:
    values = asdict(config)
    words = [f"{name}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in values.items()]
    file = tmp_path_factory.mktemp("streams") / "mine.yaml"
    file.write_text(json.dumps(values))
    ways: tuple[StreamAsked, ...] = (config, values, words, str(file), ["self-forcing", values], [str(file)])
    for way in ways:
        assert stream_choice(way).applied(STREAM) == config
    choice = stream_choice(words)
    assert stream_choice(choice) is choice


def test_later_settings_count() -> None:
    assert applied("self-forcing", "window=9", "window=12") == StreamConfig(3, 12, 0, 1)
    assert applied("window=12", "self-forcing").window_frames == 12  # one by one is the person's own word
    assert applied("steps=1000", "first_chunk_steps=none") == StreamConfig(
        **{**vars(STREAM), "denoising_steps": (1000,)}
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "self-forcin",
            "no stream 'self-forcin'; did you mean self-forcing? There are reward-forcing, self-f",
        ),
        ("", "no stream ''; There are"),
        (["self-forcing", "longlive-2"], "stream has two names, self-forcing and longlive-2; give one"),
        ("windw=3", "stream: no setting 'windw'; did you mean window?"),
        ("zzz=3", "stream: no setting 'zzz'; there are chunk_frames"),
        ({1: 3}, "stream: no setting 1"),
        ({"window": 9, "window_frames": 9}, "stream: window_frames is there twice"),
        ("chunk_frames=none", "stream: chunk_frames must have a value"),
        ("fps=0", "fps must be a positive number, got 0"),
        ("fps=1000000", "stream: fps must lie in"),
        ([3], "each of stream must be a string or a mapping, got int"),
        (3, "stream must be a name, a file, settings, or a list of them, got int"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read (No such file or directory)"),
        ("/", "no stream '/'"),
    ],
)
def test_what_is_unknown_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        stream_choice(asked)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("chunk_frames=1", "sink_frames must be 0 or chunk_frames (1), got 2"),
        ("chunk_frames=two", "chunk_frames must be a whole number, got 'two'"),
        ("steps=500,1000", "denoising_steps must fall strictly within 1000..1"),
        ("steps=", "each of denoising_steps must be a whole number, got ''"),
        ("first_chunk_steps=1000,1000", "first_chunk_steps must fall strictly"),
        ("alpha=2", "sink_alpha must lie in [0, 1], got 2"),
        ("shift=nan", "shift must be a positive number, got nan"),
        ("sampler=euler", "sampler must be renoise or unipc, got 'euler'"),
        ({"chunk_frames": 0, "window": None}, "chunk_frames must be at least 1, got 0"),
        ({"chunk_frames": [3], "window": None}, "chunk_frames must be a whole number, got [3]"),
    ],
)
def test_settings_that_cannot_be_are_refused(saved: Path, asked: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load_bundle(saved, stream=asked)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"chunk_frames: [", "no YAML: "),
        (b"- 3", "must hold settings, such as chunk_frames: 3, found list"),
        (b"", "must hold settings"),
        (b"\xff\xfe\x00", "no text; give a file of YAML"),
        (b"!!python/object/apply:os.system [ls]", "no YAML: "),
        (b"speed: 3", "no setting 'speed'"),
        (b"a: " + b"x" * MAX_BYTES, "too large for settings of a stream"),
        (b"fps: fast", "fps must be a positive number"),
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.yaml|fps") as caught:
        stream_choice(str(file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_preset_of_another_network_is_refused() -> None:
    """What is known of the network is its size; an unknown one may be anybody's student."""
    source = Path("x.pt")
    longlive = stream_choice(["longlive-2", "window=16"])
    with pytest.raises(
        ValueError,
        match=r"x\.pt: stream longlive-2 is of Wan2\.2-TI2V-5B, and this is Wan2\.1-T2V-1\.3B; give",
    ):
        longlive.check(published_name(ModelConfig().dim, ModelConfig().num_layers), {}, source)
    longlive.check(published_name(3072, 30), {}, source)
    longlive.check(published_name(24, 2), {}, source)
    stream_choice(PUBLISHED["longlive-2"]).check("Wan2.1-T2V-1.3B", {}, source)  # settings are nobody's name


def test_a_preset_that_contradicts_what_the_files_say_is_refused(saved: Path) -> None:
    assert refused(saved, stream="causal-forcing-framewise") == (
        f"{saved}: says chunk_frames 2, and stream causal-forcing-framewise has 1; "
        "leave the name out, or give the weights of causal-forcing-framewise"
    )
    asked = ["self-forcing", "chunk_frames=2", "window=4", "fps=12"]
    assert f"{saved}: says shift 3.0, and stream self-forcing has 5" in refused(saved, stream=asked)
    loaded = load_bundle(saved, stream=[*asked, "shift=3"])  # a window and a sink are free
    assert loaded.stream_config == StreamConfig(2, 4, 0, 1, shift=3)


def test_a_preset_goes_with_a_student_file_and_not_with_a_folder_of_another(
    saved: Path, copied: Path, tmp_path: Path
) -> None:
    """What the bundle says is of the weights that the student replaces."""
    file = tmp_path / "framewise-2step.pt"
    torch.save({"generator_ema": {f"model.{n}": t for n, t in dit(seed=1).state_dict().items()}}, file)
    loaded = load_bundle(saved, student=file, stream="causal-forcing-framewise-2step")
    assert loaded.stream_config == PUBLISHED["causal-forcing-framewise-2step"]
    assert loaded.fps == 16
    edit(copied / "transformer" / "config.json", num_frames_per_block=3, local_attn_size=-1)
    said = refused(saved, student=copied / "transformer", stream="causal-forcing-framewise")
    assert f"{copied / 'transformer'}: says chunk_frames 3, and stream" in said
    loaded = load_bundle(saved, student=copied / "transformer", stream="causal-forcing-chunkwise")
    assert loaded.stream_config == PUBLISHED["causal-forcing-chunkwise"]


def test_a_plain_model_warns_once_loaded_to_stream(copied: Path, tmp_path: Path) -> None:
    index = json.loads((copied / "model_index.json").read_text())
    text_len = {"text_len": index["pyrf"]["text_len"], "rope_theta": 100.0, "height": 32, "width": 48}
    (copied / "model_index.json").write_text(json.dumps(index | {"pyrf": text_len}))
    with pytest.warns(
        RuntimeWarning, match="nothing in its files says that it was trained to stream"
    ) as seen:
        pipe = StreamingPipeline.from_pretrained(str(copied))
    assert seen[0].filename == __file__
    assert any("give the weights of a student" in limit for limit in pipe.limits)  # the page shows them
    assert load_bundle(copied).undistilled
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit(copied / "transformer" / "config.json", num_frames_per_block=3)
        assert not StreamingPipeline.from_pretrained(str(copied)).limits
        edit(copied / "transformer" / "config.json", num_frames_per_block=None)
        student = tmp_path / "student.pt"
        torch.save(dit().state_dict(), student)
        assert not StreamingPipeline.from_pretrained(str(copied), student=str(student)).limits


def test_what_was_asked_for_is_in_the_metadata(saved: Path) -> None:
    pipe = StreamingPipeline.from_pretrained(str(saved), stream=["window=4", "fps=20", "steps=1000,500"])
    assert pipe.fps == 20
    assert pipe.metadata("a red circle")["stream"] == {
        "window_frames": 4,
        "fps": 20,
        "denoising_steps": [1000, 500],
    }
    assert stream_choice("self-forcing").to_dict() == {"preset": "self-forcing"}
    assert "stream" not in StreamingPipeline.from_pretrained(str(saved)).metadata("a red circle")


def test_a_choice_can_be_sent_to_another_process() -> None:
    import pickle

    choice = stream_choice(["self-forcing", "window=9"])
    assert pickle.loads(pickle.dumps(choice)) == choice
    assert isinstance(choice, StreamChoice)
