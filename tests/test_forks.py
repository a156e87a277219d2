"""A process that is forked after its parent streamed: it streams too, or says why not, and never hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PREAMBLE = """
import os, signal, sys, threading, warnings
import numpy as np
import torch
from pyrf import StreamingPipeline

RED = "a red circle"
torch.set_num_threads(2)
pipe = StreamingPipeline.from_pretrained(sys.argv[1], **{options})
stream = pipe.stream(RED, seed=1)
first = next(stream).frames
before = pipe(RED, 9, seed=1).frames

def child(work):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, work
        return
    signal.alarm(60)  # a child that hangs is killed
    work()
    sys.exit(0)  # not os._exit: what the parent had loaded is taken down too

def same(frames, expected, most=1):  # one thread sums in another order than two
    assert np.abs(frames.astype(int) - expected).max() <= most
"""

PLAIN = """
def streams():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        same(pipe(RED, 9, seed=1).frames, before)
        pipe(RED, 9)
    assert [str(w.message)[:29] for w in told] == ["this process was forked after"], told
    assert torch.get_num_threads() == 1

def goes_on():
    chunk = next(stream)
    assert chunk.index == 1
    stream.prompt = "a blue square"
    assert next(stream).prompt == "a blue square"

def loads_its_own():
    same(StreamingPipeline.from_pretrained(sys.argv[1])(RED, 9, seed=1).frames, before)

def in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(pipe(RED, 9, seed=1).frames))
    thread.start()
    thread.join()
    same(found[0], before)

def in_an_event_loop():
    import asyncio
    async def run():
        async with pipe.stream(RED, seed=1) as stream:
            return await anext(stream)
    same(asyncio.run(run()).frames, before)

def forks_again():
    child(streams_quietly)

def streams_quietly():
    same(pipe(RED, 9, seed=1).frames, before)

for work in (streams, goes_on, loads_its_own, in_a_thread, in_an_event_loop, forks_again):
    child(work)

assert torch.get_num_threads() == 2  # of the parent, which is not touched
assert next(stream).index == 1
assert np.array_equal(pipe(RED, 9, seed=1).frames, before)
"""

POOLS = """
import multiprocessing

def make(seed):
    signal.alarm(60)
    return pipe(RED, 9, seed=seed).frames

with multiprocessing.get_context("fork").Pool(2) as pool:
    for seed, frames in enumerate(pool.map(make, range(3))):
        same(frames, pipe(RED, 9, seed=seed).frames)

class Clips(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return make(index)

for index, frames in enumerate(torch.utils.data.DataLoader(Clips(), None, num_workers=2)):
    same(frames.numpy(), pipe(RED, 9, seed=index).frames)
"""

BUSY = """
entered, release = threading.Event(), threading.Event()
original = stream._compute

def slow():
    entered.set()
    release.wait()
    return original()

stream._compute = slow
asking = threading.Thread(target=lambda: next(stream), daemon=True)
asking.start()
entered.wait()
left = pipe.stream(RED, seed=1)

def refused():
    stream._compute = original
    try:
        next(stream)
    except RuntimeError as error:
        assert "this stream is the parent's" in str(error) and "begin another" in str(error)
    else:
        raise AssertionError
    stream.close()
    same(next(left).frames, before)

child(refused)
release.set()
asking.join()
assert next(stream).index == 2
"""

ONNX = """
def new_streams():
    same(pipe(RED, 9, seed=1).frames, before)
    try:
        next(stream)
    except RuntimeError as error:
        assert "this stream is the parent's" in str(error)
    else:
        raise AssertionError

child(new_streams)
child(lambda: None)
assert next(stream).index == 1
"""


def run(script: str, bundle: Path, tmp_path: Path, options: str = "{}") -> None:
    code = PREAMBLE.replace("{options}", options) + script
    environment = os.environ | {
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",  # threads that spin starve each other on a machine under load
        "PYRF_CACHE": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,  # bounds a hang alone
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_children_stream(random_bundle: Path, tmp_path: Path) -> None:
    run(PLAIN, random_bundle, tmp_path)


def test_pools_and_data_loaders(random_bundle: Path, tmp_path: Path) -> None:
    run(POOLS, random_bundle, tmp_path)


def test_a_stream_that_was_computing_says_so(random_bundle: Path, tmp_path: Path) -> None:
    run(BUSY, random_bundle, tmp_path)


def test_onnx_runtime(random_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run(ONNX, random_bundle, tmp_path, '{"backend": "onnxruntime"}')
