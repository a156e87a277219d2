"""The public API on a bundle of random weights: what streams promise, and what they refuse."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from overlapped import overlap_decoders
from random_bundle import HEIGHT, TEXT_LEN, WIDTH, save_random_bundle

import pyrf
from pyrf.backends.base import OverlappedDecoder
from pyrf.config import StreamConfig
from pyrf.pipeline import Chunk, Stream, StreamingPipeline
from pyrf.stream import Clock

RED, BLUE = "a red circle moves right", "a blue star spins"


@pytest.fixture(scope="module")
def pipe(random_bundle: Path) -> StreamingPipeline:
    return StreamingPipeline.from_pretrained(str(random_bundle))


def take(stream: Stream, count: int) -> list[Chunk]:
    return [next(stream) for _ in range(count)]


def frames_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks], axis=-4)


def test_import_needs_no_torch() -> None:
    heavy = "m for m in ('torch', 'diffusers', 'av', 'numpy') if m in sys.modules"
    code = f"import sys, pyrf; print(pyrf.__version__, *({heavy}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [pyrf.__version__]


def test_public_names_resolve() -> None:
    assert pyrf.StreamingPipeline is StreamingPipeline
    for name in pyrf.__all__:
        assert getattr(pyrf, name) is not None
        assert name in dir(pyrf)
    with pytest.raises(AttributeError, match="nothing_such"):
        pyrf.nothing_such  # noqa: B018


@pytest.mark.parametrize("num_frames", [1, 9, 10, 81])
def test_video_has_the_frames_asked_for(pipe: StreamingPipeline, num_frames: int) -> None:
    video = pipe(RED, num_frames=num_frames, seed=3)
    assert video.frames.shape == (num_frames, HEIGHT, WIDTH, 3)
    assert video.frames.dtype == np.uint8
    assert video.fps == 16
    assert video.frames.std() > 10


def test_a_clock_leaves_out_what_was_launched_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the clean call's time would hold that of the denoise calls, which the host does not wait for."""
    now, launched = [100.0], [5.0]

    def wait(_: torch.device) -> None:
        now[0] += launched[0]
        launched[0] = 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = Clock(torch.device("cuda"))
    launched[0] = 1.0
    assert (clock.lap(), clock.total()) == (1.0, 1.0)


def test_chunks_of_a_stream(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED) as stream:
        chunks = take(stream, 6)
    assert [chunk.index for chunk in chunks] == list(range(6))
    assert [len(chunk.frames) for chunk in chunks] == [9, 12, 12, 12, 12, 12]
    for chunk in chunks:
        assert chunk.prompt == RED
        assert chunk.frames.dtype == np.uint8
        assert chunk.frames.flags.c_contiguous
        timing = chunk.timing
        assert min(timing.denoise, timing.clean, timing.decode) > 0
        assert timing.prompt + timing.denoise + timing.clean + timing.decode <= timing.total * (1 + 1e-6)
    assert chunks[0].timing.prompt > 0
    for count in (1, 2, 6):
        assert pipe.num_frames_of(count) == sum(len(chunk.frames) for chunk in chunks[:count])


def test_stages_that_overlap_have_no_times_of_their_own(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pipe(RED, num_frames=33).frames
    overlap_decoders(pipe, monkeypatch)
    with pipe.stream(RED) as stream:
        chunks = take(stream, 3)
        assert isinstance(stream._rollout.decoder, OverlappedDecoder)
    assert np.array_equal(frames_of(chunks), plain)
    for chunk in chunks:
        timing = chunk.timing
        assert (timing.denoise, timing.clean, timing.decode) == (None, None, None)
        assert timing.total > 0


def test_frames_and_chunks_convert(pipe: StreamingPipeline) -> None:
    for chunks in range(1, 5):
        frames = pipe.num_frames_of(chunks)
        assert pipe.num_chunks_of(frames) == chunks
        assert pipe.num_chunks_of(frames + 1) == chunks + 1
        assert pipe.num_chunks_of(1) == 1


def test_same_seed_same_bytes(pipe: StreamingPipeline) -> None:
    first, again = pipe(RED, num_frames=57, seed=5), pipe(RED, num_frames=57, seed=5)
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, pipe(RED, num_frames=57, seed=6).frames)
    assert not np.array_equal(first.frames, pipe(BLUE, num_frames=57, seed=5).frames)


def test_a_video_is_the_start_of_its_stream(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=5) as stream:
        frames = frames_of(take(stream, 4))
    assert np.array_equal(pipe(RED, num_frames=40, seed=5).frames, frames[:40])


def test_global_random_state_is_left_alone(pipe: StreamingPipeline) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = pipe(RED, num_frames=9, seed=5).frames
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert np.array_equal(first, pipe(RED, num_frames=9, seed=5).frames)


def test_streams_side_by_side_do_not_meet(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=1) as one, pipe.stream(BLUE, seed=2) as two:
        pairs = [(next(one), next(two)) for _ in range(5)]
    assert np.array_equal(frames_of([a for a, _ in pairs]), pipe(RED, num_frames=57, seed=1).frames)
    assert np.array_equal(frames_of([b for _, b in pairs]), pipe(BLUE, num_frames=57, seed=2).frames)


def test_streams_in_threads_do_not_meet(pipe: StreamingPipeline) -> None:
    expected = pipe(RED, num_frames=117, seed=1).frames
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(lambda: frames_of(take(pipe.stream(RED, seed=1), 10))) for _ in range(3)]
        for job in jobs:
            assert np.array_equal(job.result(), expected)


def test_batch_elements_equal_single_runs(pipe: StreamingPipeline) -> None:
    videos = pipe([RED, BLUE, RED], num_frames=57, seed=[5, 6, 7])
    assert len(videos) == 3
    for video, prompt, seed in zip(videos, (RED, BLUE, RED), (5, 6, 7)):
        alone = pipe(prompt, num_frames=57, seed=seed)
        # Other batch sizes may sum in another order: the same up to a rounding of the last bit.
        assert np.abs(video.frames.astype(int) - alone.frames).max() <= 1
    counted = pipe([RED, BLUE, RED], num_frames=9, seed=5)
    assert all(np.array_equal(a.frames, b.frames[:9]) for a, b in zip(counted, videos))


def test_batch_chunks(pipe: StreamingPipeline) -> None:
    with pipe.stream([RED, BLUE], seed=[0, 1]) as stream:
        chunk = next(stream)
        assert chunk.frames.shape == (2, 9, HEIGHT, WIDTH, 3)
        assert chunk.prompt == (RED, BLUE)
        stream.prompt = BLUE
        assert stream.prompt == (BLUE, BLUE)
        stream.prompt = [BLUE, RED]
        assert next(stream).prompt == (BLUE, RED)
        with pytest.raises(ValueError, match="has 2 prompts, got 1"):
            stream.prompt = [RED]


def test_prompt_switch_takes_effect_at_the_next_chunk(pipe: StreamingPipeline) -> None:
    steady = pipe(RED, num_frames=57, seed=5).frames
    with pipe.stream(RED, seed=5) as stream:
        chunks = take(stream, 2)
        stream.prompt = "a green square"
        stream.prompt = BLUE  # the last one counts
        assert stream.prompt == BLUE
        assert chunks[-1].prompt == RED
        chunks += take(stream, 3)
    assert [chunk.prompt for chunk in chunks] == [RED, RED, BLUE, BLUE, BLUE]
    frames = frames_of(chunks)
    assert np.array_equal(frames[:21], steady[:21])
    assert not np.array_equal(frames[21:33], steady[21:33])
    assert [chunk.timing.prompt > 0 for chunk in chunks] == [True, False, True, False, False]


def test_switch_to_the_same_prompt_changes_nothing(pipe: StreamingPipeline) -> None:
    with pipe.stream(RED, seed=5) as stream:
        chunks = take(stream, 2)
        stream.prompt = RED
        chunks += take(stream, 3)
    assert np.array_equal(frames_of(chunks), pipe(RED, num_frames=57, seed=5).frames)


def test_recache_changes_what_the_past_says(pipe: StreamingPipeline) -> None:
    def switched(recache: bool) -> np.ndarray:
        with pipe.stream(RED, seed=5) as stream:
            chunks = take(stream, 4)
            stream.set_prompt(BLUE, recache=recache)
            return frames_of(chunks + take(stream, 2))

    plain, recached = switched(False), switched(True)
    assert np.array_equal(plain[:45], recached[:45])
    assert not np.array_equal(plain[45:], recached[45:])


def test_prompts_assigned_from_other_threads(pipe: StreamingPipeline) -> None:
    stop = threading.Event()
    seen = set()
    with pipe.stream(RED) as stream:

        def assign(prompt: str) -> None:
            while not stop.wait(1e-4):  # without a pause the model's thread hardly gets the interpreter
                stream.prompt = prompt

        threads = [threading.Thread(target=assign, args=(prompt,)) for prompt in (RED, BLUE)]
        for thread in threads:
            thread.start()
        try:
            seen = {chunk.prompt for chunk in take(stream, 20)}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        stream.prompt = "a green square"
        assert next(stream).prompt == "a green square"
    assert seen <= {RED, BLUE}


def live_bytes() -> int:
    """Bytes of all live tensors, each storage once."""
    gc.collect()
    sizes = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor or type(thing) is torch.nn.Parameter:
            sizes[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(sizes.values())


def test_leaving_the_context_frees_the_memory(pipe: StreamingPipeline) -> None:
    take(pipe.stream(RED), 1)  # whatever the network keeps for good, it has now
    before = live_bytes()
    with pipe.stream(RED) as stream:
        take(stream, 4)
        rollout = weakref.ref(stream._rollout)
        held = live_bytes()
    config, slots = pipe.model_config, pipe.stream_config.slots
    tokens = 3 * (HEIGHT // 16) * (WIDTH // 16)
    cache = 2 * 4 * config.num_layers * slots * tokens * config.dim
    assert held - before >= cache
    assert rollout() is None
    assert live_bytes() == before
    with pytest.raises(StopIteration):
        next(stream)


def test_close_ends_every_kind_of_iteration(pipe: StreamingPipeline) -> None:
    stream = pipe.stream(RED)
    for chunk in stream:
        if chunk.index == 1:
            stream.close()
    assert chunk.index == 1
    assert list(stream) == []
    stream.close()

    async def drain() -> list[Chunk]:
        return [chunk async for chunk in stream]

    assert asyncio.run(drain()) == []


def test_closing_gives_up_the_chunk_under_way(
    pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = pipe.stream(RED)
    next(stream)
    inner = stream._rollout.backend.inner
    original, calls, closers = inner.denoise, [], []

    def denoise(*arguments: Any) -> torch.Tensor:
        calls.append(arguments)
        closers.append(threading.Thread(target=stream.close))
        closers[-1].start()
        while not stream._closed:
            closers[-1].join(0.01)
        return original(*arguments)

    monkeypatch.setattr(inner, "denoise", denoise)
    assert list(stream) == []
    assert len(calls) == 1
    closers[0].join()
    assert stream._rollout is None


def test_an_error_closes_the_stream(pipe: StreamingPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe.stream(RED) as stream:
        next(stream)

        def fail(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(stream._rollout.decoder, "decode", fail)
        with pytest.raises(MemoryError):
            next(stream)
        assert stream._rollout is None
        assert list(stream) == []


def test_async_iteration_gives_the_same_frames(pipe: StreamingPipeline) -> None:
    async def collect() -> tuple[np.ndarray, set[str]]:
        chunks, threads = [], set()
        async with pipe.stream(RED, seed=5) as stream:
            original = stream._compute

            def compute() -> Chunk | None:
                threads.add(threading.current_thread().name)
                return original()

            stream._compute = compute  # type: ignore[method-assign]
            async for chunk in stream:
                chunks.append(chunk)
                if chunk.index == 4:
                    break
        return frames_of(chunks), threads

    frames, threads = asyncio.run(collect())
    assert np.array_equal(frames, pipe(RED, num_frames=57, seed=5).frames)
    assert len(threads) == 1
    assert threads.isdisjoint({threading.current_thread().name})


async def cancel_a_wait(stream: Stream, entered: threading.Event) -> None:
    """Wait for a chunk, and give up once its computation has begun."""
    task = asyncio.create_task(anext(stream))
    await asyncio.to_thread(entered.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_cancelled_async_iteration_loses_no_chunk(pipe: StreamingPipeline) -> None:
    async def run() -> list[Chunk]:
        async with pipe.stream(RED, seed=5) as stream:
            chunks = [await anext(stream)]
            release, entered = threading.Event(), threading.Event()
            original = stream._compute

            def slow() -> Chunk | None:
                entered.set()
                assert release.wait(60)
                return original()

            stream._compute = slow  # type: ignore[method-assign]
            await cancel_a_wait(stream, entered)
            release.set()
            chunks += [await anext(stream), await anext(stream)]
            return chunks

    chunks = asyncio.run(run())
    assert [chunk.index for chunk in chunks] == [0, 1, 2]
    assert np.array_equal(frames_of(chunks), pipe(RED, num_frames=33, seed=5).frames)


def test_cancelled_async_iteration_loses_no_error(pipe: StreamingPipeline) -> None:
    unheard: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        async with pipe.stream(RED) as stream:
            release, entered = threading.Event(), threading.Event()

            def fail() -> Chunk:
                entered.set()
                assert release.wait(60)
                raise MemoryError("no room")

            stream._next_chunk = fail  # type: ignore[method-assign]
            await cancel_a_wait(stream, entered)
            release.set()
            stream._under_way.exception(60)  # the stream is closed by now
            with pytest.raises(MemoryError, match="no room"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        gc.collect()

    asyncio.run(run())
    assert unheard == []


def test_async_and_sync_may_be_mixed(pipe: StreamingPipeline) -> None:
    async def run(stream: Stream) -> list[Chunk]:
        return [await anext(stream), next(stream), await anext(stream)]

    with pipe.stream(RED) as stream:
        assert [chunk.index for chunk in asyncio.run(run(stream))] == [0, 1, 2]


def test_image_start_stands_for_a_still_past(pipe: StreamingPipeline) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    still = np.repeat(image[None], 9, axis=0)
    from_image = pipe(RED, num_frames=36, seed=5, image=image).frames
    assert from_image.shape[0] == 36
    assert np.array_equal(from_image, pipe(RED, num_frames=36, seed=5, video=still).frames)
    assert np.array_equal(from_image, pipe(RED, num_frames=36, seed=5, video=still[:4]).frames)
    assert not np.array_equal(from_image, pipe(RED, num_frames=36, seed=5).frames)
    with pipe.stream(RED, image=image) as stream:
        start = weakref.ref(stream._start)
        chunks = take(stream, 2)
        assert start() is None  # not kept once it is in the cache
    with pipe.stream(RED, image=image) as stream:
        start = weakref.ref(stream._start)
    assert start() is None
    assert [(chunk.index, len(chunk.frames)) for chunk in chunks] == [(0, 12), (1, 12)]


def test_video_start_uses_whole_chunks_of_its_end(pipe: StreamingPipeline) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), np.uint8)
    whole = pipe(RED, num_frames=12, video=clip).frames
    assert np.array_equal(whole, pipe(RED, num_frames=12, video=clip[-21:]).frames)
    assert not np.array_equal(whole, pipe(RED, num_frames=12, video=clip[-9:]).frames)


def test_own_size_and_window(random_bundle: Path, pipe: StreamingPipeline) -> None:
    assert pipe(RED, num_frames=9, height=16, width=64).frames.shape == (9, 16, 64, 3)
    wide = StreamingPipeline.from_pretrained(str(random_bundle), window_frames=12)
    assert wide.stream_config == StreamConfig(window_frames=12)
    ours, theirs = (p(RED, num_frames=57, seed=5).frames for p in (wide, pipe))
    assert np.array_equal(ours[:33], theirs[:33])  # the third chunk is the last that sees all in both
    assert not np.array_equal(ours[33:], theirs[33:])


def test_bfloat16_runs(random_bundle: Path, pipe: StreamingPipeline) -> None:
    low = StreamingPipeline.from_pretrained(str(random_bundle), dtype="bfloat16")
    frames = low(RED, num_frames=9, seed=5).frames
    assert np.abs(frames.astype(int) - pipe(RED, num_frames=9, seed=5).frames).mean() < 16
    clip = torch.from_numpy(frames)[None]
    latents = low.codec.encode(clip)  # errors here would grow along the stream
    assert latents.dtype == torch.float32
    assert torch.equal(latents, pipe.codec.encode(clip))


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
        ({"a": 1}, "got dict"),
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
        ({"image": np.zeros((32, 32, 3), np.uint8)}, "size of the stream, 32 x 48 x 3, got 32 x 32 x 3"),
        ({"image": np.zeros((32, 48, 3))}, r"image must be uint8 \[H, W, 3\], got float64"),
        ({"video": np.zeros((0, 32, 48, 3), np.uint8)}, r"video must be uint8 \[T, H, W, 3\]"),
        ({"video": np.zeros((32, 48, 3), np.uint8)}, r"video must be uint8 \[T, H, W, 3\]"),
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
        ({"device": "warp"}, "device must be cpu, cuda"),
        ({"device": "meta"}, "device must be cpu, cuda"),
        ({"device": "cuda:99"}, "torch sees"),
        ({"backend": "abacus"}, "backend must be one of torch, onnxruntime, tensorrt, got 'abacus'"),
        ({"window_frames": 4}, "window_frames must be a multiple of chunk_frames"),
        ({"window_frames": 3}, "window_frames must be a multiple of chunk_frames"),
        ({"window_frames": 4098}, "window_frames must be at most 4096, got 4098"),
        ({"window_frames": 9.0}, "window_frames must be a whole number, got 9.0"),
        ({"name": "nowhere"}, "nowhere"),
    ],
)
def test_bad_loading(random_bundle: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        StreamingPipeline.from_pretrained(**{"name": str(random_bundle), **arguments})
    assert "\n" not in str(error.value)


def test_bundle_with_its_own_geometry(tmp_path: Path) -> None:
    config = StreamConfig(chunk_frames=1, window_frames=4, sink_frames=0, denoising_steps=(1000, 500))
    path = save_random_bundle(tmp_path / "bundle", stream_config=config)
    pipe = StreamingPipeline.from_pretrained(str(path))
    with pipe.stream(RED) as stream:
        assert [len(chunk.frames) for chunk in take(stream, 6)] == [1, 4, 4, 4, 4, 4]
    assert len(pipe(RED, num_frames=7).frames) == 7
