"""The engine cache: what it accepts, what it refuses, and that it never holds half a file."""

import os
from dataclasses import replace

import pytest

from pyrf.export.tensorrt.cache import MAGIC, DamagedEngineError, EngineCache, EngineKey, read_engine

KEY = EngineKey(
    graph="denoise",
    structure="ab" * 32,
    weights="cd" * 32,
    dtype="bfloat16",
    geometry="60 x 104 latents, window 9",
    runtime="tensorrt 10.16.1",
    compute_capability="9.0",
    flags=("refit",),
)
ENGINE = bytes(range(256)) * 40


@pytest.fixture
def lines():
    return []


@pytest.fixture
def cache(tmp_path, lines):
    return EngineCache(tmp_path / "engines", lines.append)


def test_a_stored_engine_is_found_again(cache, lines):
    assert cache.load(KEY) is None
    path = cache.store(KEY, ENGINE)
    assert cache.load(KEY) == ENGINE
    assert [p.name for p in path.parent.iterdir()] == [KEY.file]
    assert not lines


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("graph", "clean"),
        ("structure", "00" * 32),
        ("weights", "00" * 32),
        ("dtype", "float16"),
        ("geometry", "30 x 52 latents, window 9"),
        ("runtime", "tensorrt 10.17.0"),
        ("compute_capability", "10.0"),
        ("flags", ()),
    ],
)
def test_whatever_an_engine_depends_on_makes_it_another(cache, field, value):
    cache.store(KEY, ENGINE)
    assert cache.load(replace(KEY, **{field: value})) is None


@pytest.mark.parametrize("size", [0, 5, len(MAGIC) + 2, len(MAGIC) + 40, -1, -len(ENGINE)])
def test_a_truncated_file_is_reported_in_a_line_and_counts_as_none(cache, lines, size):
    path = cache.store(KEY, ENGINE)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(DamagedEngineError):
        read_engine(path)
    assert cache.load(KEY) is None
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert "\n" not in lines[0]
    cache.store(KEY, ENGINE)
    assert cache.load(KEY) == ENGINE


def test_any_flipped_bit_is_noticed(cache, lines):
    path = cache.store(KEY, ENGINE)
    whole = path.read_bytes()
    for place in (*range(0, len(whole) - len(ENGINE), 7), len(whole) - len(ENGINE), len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        assert cache.load(KEY) is None, place
    assert lines


def test_a_foreign_file_in_the_right_place_is_named_with_what_it_is_for(cache, lines):
    other = cache.store(replace(KEY, runtime="tensorrt 10.9.0"), ENGINE)
    other.rename(cache.path(KEY))
    assert cache.load(KEY) is None
    assert "runtime tensorrt 10.9.0, not tensorrt 10.16.1" in lines[0]


def test_only_other_weights_make_a_relative_to_refit(cache):
    newer = replace(KEY, weights="ef" * 32)
    assert cache.relative(newer) is None
    cache.store(KEY, ENGINE)
    cache.store(replace(KEY, compute_capability="8.9", weights="12" * 32), b"another")
    assert cache.relative(newer) == ENGINE
    cache.path(KEY).write_bytes(b"junk")
    assert cache.relative(newer) is None


def test_the_newest_relative_is_refitted(cache):
    for age, weights in enumerate(("56" * 32, "12" * 32, "34" * 32)):
        path = cache.store(replace(KEY, weights=weights), weights.encode())
        os.utime(path, (1e9 - age, 1e9 - age))
    assert cache.relative(KEY) == ("56" * 32).encode()


def test_a_failed_write_leaves_the_old_engine_and_no_litter(cache, monkeypatch):
    path = cache.store(KEY, ENGINE)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        cache.store(KEY, b"half")
    assert cache.load(KEY) == ENGINE
    assert list(path.parent.iterdir()) == [path]
