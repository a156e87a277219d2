"""Each part tells streams that are as they should be from those that are spoilt in a known way."""

import numpy as np
import pytest

from pyrf.evaluation.report import lasting as lasting_module
from pyrf.evaluation.report.attributes import attributes
from pyrf.evaluation.report.changes import BEFORE, changes
from pyrf.evaluation.report.examined import Part
from pyrf.evaluation.report.lasting import lasting
from pyrf.evaluation.report.picture import picture
from pyrf.evaluation.report.told_apart import frame_pairs, tell_apart, told_apart
from pyrf.worlds.choice import WORLDS
from pyrf.worlds.world import Frames
from tests.support.true_streams import FIRST, TrueStreams

SHAPES = WORLDS["shapes"]()


def values(part: Part) -> dict[str, float]:
    return {measure.name: measure.value for measure in part.measures}


def drained(frames: Frames, start: int) -> Frames:
    """Without colour."""
    return np.repeat(frames.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)


def frozen(frames: Frames, start: int) -> Frames:
    return np.repeat(frames[:1], len(frames), axis=0) if start < 60 else np.full_like(frames, 90)


def standing(frames: Frames, start: int) -> Frames:
    """A picture that no time changes, and that is not flat."""
    still = np.full_like(frames, 60)
    still[:, 10:40, 20:60] = (200, 80, 40)
    return still


def drifting(frames: Frames, start: int) -> Frames:
    """Bluer by half a level a frame."""
    shift = np.zeros(3)
    shift[2] = start / 2
    return np.clip(frames + shift, 0, 255).astype(np.uint8)


def jumping(frames: Frames, start: int) -> Frames:
    """The light changes from chunk to chunk."""
    return np.clip(frames.astype(int) + (30 if start // 12 % 2 else 0), 0, 255).astype(np.uint8)


def blurred(frames: Frames, start: int) -> Frames:
    """Each pixel the mean of 25."""
    wide = np.pad(frames.astype(np.float32), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    height, width = frames.shape[1:3]
    parts = [wide[:, y : y + height, x : x + width] for y in range(5) for x in range(5)]
    return np.mean(parts, axis=0).astype(np.uint8)


def test_attributes_are_read_from_the_clips() -> None:
    good, bad = attributes(TrueStreams(), 12), attributes(TrueStreams(spoil=drained), 12)
    assert values(good)["every"] >= 0.9
    assert values(bad)["color"] <= 0.5
    color = next(measure for measure in bad.measures if measure.name == "color")
    assert color.at_least is not None
    assert color.at_least >= 0.9
    assert color.clips == 12
    assert [title for title, _ in good.rows] == [prompt.text for prompt in SHAPES.held_out(12)]


@pytest.fixture
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting_module, "PAIRS", 10)


@pytest.mark.usefixtures("few_pairs")
def test_long_streams_that_last() -> None:
    found = values(lasting(TrueStreams(), 6, 20.0))
    assert found["every"] >= 0.8
    assert found["clips: frozen"] == found["clips: blew up"] == 0
    assert found["drift: whole"] < 4


@pytest.mark.usefixtures("few_pairs")
def test_long_streams_that_fail() -> None:
    assert values(lasting(TrueStreams(spoil=frozen), 6, 10.0))["clips: blew up"] == 1
    stands = values(lasting(TrueStreams(spoil=standing), 6, 10.0))
    movers = sum(prompt.asks["motion"] != "still" for prompt in SHAPES.held_out(6))
    assert stands["clips: frozen"] == pytest.approx(movers / 6)  # those that ask for rest are right
    assert stands["clips: blew up"] == 0
    drifts = values(lasting(TrueStreams(spoil=drifting), 6, 20.0))
    assert drifts["drift: whole"] > 40
    assert drifts["kept look: whole"] == drifts["kept look: top"] == 0


def test_only_the_ends_of_long_streams_are_kept() -> None:
    stream = lasting_module.Watched(1000, 80)
    for start in range(0, 1000, 10):
        times = np.arange(start, start + 10) % 251
        stream.add(np.broadcast_to(times[:, None, None, None], (10, 4, 4, 3)).astype(np.uint8))
    assert stream.end[:, 0, 0, 0].tolist() == [time % 251 for time in range(920, 1000)]
    assert len(stream.kept) == lasting_module.SHEET_FRAMES
    assert stream.drift()[1] == pytest.approx(np.sqrt(3) * abs(stream.end[:, 0, 0, 0].mean() - 39.5))


def test_changes_are_followed_or_not() -> None:
    good = values(changes(TrueStreams(), 16))
    assert good["shown within 1"] >= 0.8
    assert good["lasts"] >= 0.9
    assert good["kept"] >= 0.9
    stubborn = values(changes(TrueStreams(follows=False), 16))
    assert stubborn["shown within 3"] <= 0.2
    assert stubborn["lasts"] <= 0.1
    assert stubborn["kept"] >= 0.9


def test_what_a_change_loses_is_seen() -> None:
    def spoil(frames: Frames, start: int) -> Frames:
        return drained(frames, start) if start >= FIRST + (BEFORE - 1) * 12 else frames

    assert values(changes(TrueStreams(spoil=spoil), 16))["kept"] < 0.9


def test_pictures_are_as_sharp_as_true_ones_or_not() -> None:
    good, soft = values(picture(TrueStreams(), 6)), values(picture(TrueStreams(spoil=blurred), 6))
    assert good["sharpness"] == pytest.approx(1)
    assert soft["sharpness"] < 0.5


def test_borders_of_chunks_show_or_not() -> None:
    assert values(picture(TrueStreams(), 6))["chunk borders"] == pytest.approx(1, abs=0.15)
    assert values(picture(TrueStreams(spoil=jumping), 6))["chunk borders"] > 3


def test_spoilt_clips_are_told_apart_and_true_ones_are_not() -> None:
    clips = np.stack([frame_pairs(SHAPES.scene(seed).render(0, 8), [0, 3]) for seed in range(48)])
    one, other = clips[:24], clips[24:]
    with_seams = one.copy()
    with_seams[..., ::8, :] += 24  # a lattice, as of tokens; where it wraps, it shows as well
    told = tell_apart(with_seams, other, steps=150)
    assert (told.streamed > 0).mean() > 0.9
    assert (told.true <= 0).mean() > 0.9
    alike = tell_apart(one, other, steps=150)
    accuracy = np.mean([*(alike.streamed > 0), *(alike.true <= 0)])
    assert 0.2 < accuracy < 0.8


def test_the_same_clips_are_told_apart_alike() -> None:
    clips = np.stack([frame_pairs(SHAPES.scene(seed).render(0, 2), [0]) for seed in range(8)])
    one, other = (tell_apart(clips[:4], clips[4:], steps=3) for _ in range(2))
    np.testing.assert_allclose(one.true, other.true, atol=1e-4)


def test_the_sheet_shows_the_surest_clips_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyrf.evaluation.report.told_apart.STEPS", 1)
    part = told_apart(TrueStreams(), 8)
    (accuracy,) = part.measures
    assert accuracy.clips == 8  # four streamed ones and four true ones
    logits = [float(title.split()[0]) for title, _ in part.rows]
    assert len(logits) == 4
    assert logits == sorted(logits, reverse=True)
    texts = {prompt.text for prompt in SHAPES.held_out(8)[1::2]}
    assert {title.split(maxsplit=1)[1] for title, _ in part.rows} == texts
