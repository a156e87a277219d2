"""What is made of timesteps is made once, and never piles up."""

from pyrf.loop.timesteps import MOST_KEPT, PerTimestep


def test_it_is_made_once_and_the_ones_in_use_stay() -> None:
    made: list[float] = []

    def make(timestep: float) -> str:
        made.append(timestep)
        return f"{timestep:g}"

    kept: PerTimestep[float, str] = PerTimestep()
    own = [1000.0, 625.0, 0.0]
    for strength in range(200):
        assert [kept.get(t, make) for t in [*own, 300 + 0.1 * strength]][:3] == ["1000", "625", "0"]
        assert len(kept) <= MOST_KEPT
    assert made[:4] == [1000, 625, 0, 300]
    assert len(made) == 3 + 200
    kept.clear()
    kept.get(0.0, make)
    assert made[-1] == 0
