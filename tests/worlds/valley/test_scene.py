"""Scenes are closed forms of time: the same from any start, smooth, and as their attributes say."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pyrf.worlds.valley.attributes import HEIGHT, LANDS, TIMES, WIDTH
from pyrf.worlds.valley.noise import hashed, noise
from pyrf.worlds.valley.scene import Scene
from pyrf.worlds.valley.world import Valley

WORLD = Valley()


def of(seed: int, **wanted: Any) -> Scene:
    """A scene with some of its attributes chosen."""
    rng = random.Random(seed)
    return Scene(replace(Valley().sample(rng), **wanted), rng)


@pytest.mark.parametrize("seed", range(16))
def test_a_stretch_drawn_alone_equals_the_same_stretch_of_the_whole(seed: int) -> None:
    land = LANDS[seed % 4]
    season = "green" if land in ("mountains", "hills") else None
    weather = ("cloudy", "foggy", "clear", "cloudy")[seed // 4]
    scene = of(seed, land=land, season=season, weather=weather)
    whole = scene.draw(1000, 20)
    for first, count in ((0, 1), (7, 5), (13, 7)):
        part = scene.draw(1000 + first, count)
        assert torch.equal(part, whole[first : first + count])
    again = of(seed, land=land, season=season, weather=weather)
    assert torch.equal(again.draw(1019, 1)[0], whole[19])


def test_drawing_does_not_depend_on_the_number_of_threads() -> None:
    scene, before = of(3, land="mountains", season="autumn", weather="cloudy"), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = scene.draw(50, 4)
        torch.set_num_threads(2)
        two = scene.draw(49, 9)[1:5]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, two)


def test_a_long_fast_clip_is_drawn_in_parts_without_a_seam() -> None:
    scene = of(5, land="dunes", season=None, camera="right", speed="fast")
    clip = scene.draw(0, 320).float()
    steps = (clip[1:] - clip[:-1]).abs().mean((1, 2, 3))
    assert steps.max() < 2.5 * steps.median()


@pytest.mark.parametrize("land", LANDS)
def test_hours_later_a_scene_still_has_its_look(land: str) -> None:
    season = "green" if land in ("mountains", "hills") else None
    scene = of(8, land=land, season=season, time="noon", weather="clear", balloon=None, path=None)
    early, late = scene.draw(0, 1)[0].float(), scene.draw(16 * 3600 * 3, 1)[0].float()
    assert torch.equal(early[:, :20], late[:, :20])
    assert (early.mean((1, 2)) - late.mean((1, 2))).abs().max() < 12


def test_frames_are_uint8_of_the_worlds_size() -> None:
    frames = WORLD.scene(1).render(5, 3)
    assert frames.dtype == np.uint8
    assert frames.shape == (3, HEIGHT, WIDTH, 3)
    assert frames.flags.c_contiguous


def test_nothing_moves_under_a_still_camera_but_what_may() -> None:
    scene = of(
        4, land="hills", season="green", weather="clear", camera="still", speed=None, balloon=None, path=None
    )
    clip = scene.draw(0, 8)
    assert torch.equal(clip[0], clip[7])


def test_hours_differ_in_brightness() -> None:
    mean = {
        time: float(of(6, time=time, weather="clear", land="hills", season="green").draw(0, 1).float().mean())
        for time in TIMES
    }
    assert mean["night"] < mean["dusk"] < mean["noon"]


@pytest.mark.parametrize(
    ("path", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("rise", 1, -1), ("sink", 1, 1)]
)
def test_a_balloon_goes_its_way_and_is_always_in_sight(path: str, axis: int, sign: int) -> None:
    scene = of(7, balloon="red", path=path)
    steps = []
    for time in range(0, 1200, 7):
        here, then = scene.balloons(time), scene.balloons(time + 1)
        assert here
        if len(here) == len(then) == 1:
            steps.append(then[0][axis] - here[0][axis])
    assert np.median(np.array(steps)) * sign > 0.3


def test_the_balloon_is_drawn_where_it_is_said_to_be() -> None:
    scene = of(9, balloon="red", path="hover", time="noon", weather="clear", land="sea", season=None)
    frame = scene.draw(30, 1)[0].float()
    (x, y), *_ = scene.balloons(30)
    red = frame[0] - frame[2]
    rows, columns = torch.where(red > 120)
    assert abs(float(columns.float().mean()) - x) < 8
    assert abs(float(rows.float().mean()) - y) < 10


def test_hashes_do_not_depend_on_their_company() -> None:
    cells = torch.arange(-50, 51)
    whole = hashed(cells, 7)
    assert torch.equal(whole[17:19], hashed(cells[17:19], 7))
    assert 0 <= float(whole.min()) <= float(whole.max()) < 1
    assert abs(float(hashed(torch.arange(10000), 3).mean()) - 0.5) < 0.02
    u = torch.arange(0, 9, 0.37, dtype=torch.float64)
    assert torch.equal(noise(u, 5)[4:6], noise(u[4:6], 5))


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="lands are some of mountains"):
        Valley(lands=("moon",))
    with pytest.raises(ValueError, match="from 0 to 1"):
        Valley(empty=2)


def test_a_smaller_world_draws_from_its_choices_only() -> None:
    world = Valley(lands=("sea",), weathers=("clear", "cloudy"), balloons=("red", "blue"), empty=0)
    seen = [world.scene(seed).attributes for seed in range(60)]
    assert {a.land for a in seen} == {"sea"}
    assert {a.weather for a in seen} == {"clear", "cloudy"}
    assert {a.balloon for a in seen} == {"red", "blue"}
    assert {a.season for a in seen} == {None}


def _same(before: Scene, after: Scene, frame: int) -> float:
    """Share of the pixels that a turn leaves within two levels."""
    a, b = before.draw(frame, 1).int(), after.draw(frame, 1).int()
    return float(((a - b).abs().amax(1) <= 2).float().mean())


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [("balloon", "blue", 0.95), ("camera", "left", 0.999), ("speed", "fast", 0.999), ("path", "right", 0.97)],
)
def test_what_a_turn_does_not_name_goes_on_from_where_it_is(name: str, value: str, kept: float) -> None:
    before = of(
        1,
        land="hills",
        season="green",
        balloon="red",
        path="hover",
        camera="right",
        speed="slow",
        weather="clear",
    )
    after = before.turned(name, value, 700, random.Random(0))
    assert getattr(after.attributes, name) == value
    assert _same(before, after, 700) > kept
    (x, y), *_ = before.balloons(700)
    assert any(abs(x - a) < 0.01 and abs(y - b) < 0.01 for a, b in after.balloons(700))
    assert after.camera(700) == pytest.approx(before.camera(700))


@pytest.mark.parametrize(("name", "value"), [("weather", "cloudy"), ("time", "night"), ("season", "snowy")])
def test_ridges_stay_where_they_are_when_the_sky_or_the_season_turns(name: str, value: str) -> None:
    before = of(2, land="mountains", season="green", time="noon", weather="clear", balloon=None, path=None)
    after = before.turned(name, value, 300, random.Random(0))
    now, then = before.draw(300, 1)[0].float().mean(0), after.draw(300, 1)[0].float().mean(0)
    # steps down the rows are where ridges are
    a, b = (picture[1:150] - picture[:149] for picture in (now, then))
    edge = a.abs() > 20
    assert edge.sum() > 200
    assert (b.abs()[edge] > 4).float().mean() > 0.75


@pytest.mark.parametrize("path", ["left", "right", "rise", "sink", "hover"])
@pytest.mark.parametrize("seed", range(4))
def test_a_balloon_on_another_path_is_soon_in_sight_and_follows_it(path: str, seed: int) -> None:
    for was in ("left", "right", "rise", "sink", "hover"):
        if was == path:
            continue
        scene = of(seed, balloon="red", path=was)
        turned = scene.turned("path", path, 1000, random.Random(seed))
        here, there = turned.balloons(1000), turned.balloons(1006)
        assert here
        moved = [(c - a, d - b) for a, b in here for c, d in there if abs(c - a) < 12 and abs(d - b) < 12]
        along = {"left": (-1, 0), "right": (1, 0), "rise": (0, -1), "sink": (0, 1), "hover": (0, 0)}[path]
        assert any(
            (dx * along[0] + dy * along[1] > 1.5) if along != (0, 0) else dx * dx + dy * dy < 4
            for dx, dy in moved
        )
