"""Shell lines of the pages: each is run here, or the table says by which test else, or why by none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import networks
from tests.support.chat_endpoint import as_chat, chat_endpoint
from tests.support.forked import fork_ranks
from tests.support.page_files import make_files
from tests.support.random_bundle import HEIGHT, WIDTH, save_random_bundle
from tests.support.reader import SERVER, Reader
from tests.support.receivers import free_port, recorder, rtmp_server
from tests.support.shell_lines import shell_lines
from tests.test_documentation import BLOCKS, HISTORY, PAGES, ROOT

LINES = {
    page.relative_to(ROOT).as_posix(): lines
    for page in PAGES
    if page.name not in HISTORY and (lines := shell_lines(page))
}
DOWNLOADS, WANTS_GPUS, WANTS_TENSORRT = "it downloads", "a GPU, or several", "a GPU, and TensorRT"
INSTALLED = "tests/test_whole_way.py::test_the_installation"
RECEIVED = "tests/test_whole_way.py::test_rtmp_reaches_the_receiver"
KEYS = "tests/test_pages_served.py::test_keys"
HOURS = "hours; in small "
CHAIN = "tests/training/scratch/test_valley_recipe.py::test_the_chain_makes_a_bundle_that_streams"
GATES = "tests/training/study/test_gates.py::test_all_gates_are_measured_and_read_back"
STUDY = "tests/training/study/test_study.py::test_the_command_measures_what_was_trained_and_goes_on"
NOT_HERE = {
    "pip install": DOWNLOADS,
    ".venv/bin/pip install": DOWNLOADS,
    "COMFYUI_PYTHON -m pip install": DOWNLOADS,
    ".ci/lowest": DOWNLOADS,
    ".ci/package": DOWNLOADS,
    "deploy/install.sh": DOWNLOADS + "; .ci/image runs it",
    "docker ": DOWNLOADS + "; .ci/image follows the steps",
    "python3 -m venv": INSTALLED,
    "source .venv/bin/activate": INSTALLED,
    "make demo": INSTALLED,
    "make test": "is this suite",
    ".venv/bin/pytest -m slow": "is the slow part of this suite",
    ".venv/bin/pytest -m gpu": WANTS_GPUS,
    "make docs": "tests/test_site.py::site",
    "cd PYRF_CLONE": "stands for a folder of the reader's",
    "cp -r integrations/comfyui": "tests/support/comfyui.py::load_pack",
    "pyrf keys ": KEYS,
    "pyrf serve --keys": KEYS,
    "pyrf admin ": KEYS,
    "export PYRF_TOKEN": KEYS,
    "python app.py": "tests/test_site.py::test_the_first_app",
    "python examples/file_writer.py server.png": "tests/test_site.py::test_the_first_server",
    "python integrations/gradio_space/app.py": "tests/integrations/test_gradio_space.py::client",
    'nginx -p "$PWD"': RECEIVED,
    'pyrf generate "a large red circle moves right" -o rtmp': RECEIVED,
    "ffmpeg -i show.flv": RECEIVED,
    "pyrf serve --allow-output": "tests/test_pages_served.py::test_outputs_and_the_client",
    "pyrf serve --model valley --model tiny": "tests/test_pages_served.py::test_several_models",
    "pyrf serve --ray": "tests/serve/ray/test_app.py::cluster",
    "benchmarks/on_gpu.sh --rehearse": "tests/benchmarks/test_on_gpu.py::test_the_whole_rehearsal",
    "benchmarks/on_gpu.sh": WANTS_GPUS,
    "python benchmarks/h100.py": WANTS_GPUS + "; in small tests/benchmarks/test_h100.py::test_figures",
    "python benchmarks/random_wan.py": WANTS_GPUS + "; in small tests/benchmarks/test_on_gpu.py::rehearse",
    "torchrun --nproc-per-node 8": WANTS_GPUS,
    "torchrun --nnodes 8": WANTS_GPUS,
    "pyrf train benchmarks/redmd_one_gpu.yaml": WANTS_GPUS,
    "pyrf export Wan-AI/Wan2.1-T2V-1.3B-Diffusers --student rewardforcing.pt --to tensorrt": WANTS_TENSORRT,
    'pyrf generate "a red circle moves right" -o out.mp4 --model Wan-AI': WANTS_TENSORRT,
    "pyrf doctor --model DIR --backend tensorrt": WANTS_TENSORRT,
    'pyrf osc "the sea at dawn" -o camera:': "a virtual camera",
    'pyrf osc "dunes at noon, the camera pans right" -o window:': "a display",
    ".venv/bin/python -m tests.kernels.prove": "tests/kernels/test_proof.py::test_what_was_proven",
    "python -m tests.kernels.prove": "tests/kernels/test_proof.py::test_what_was_proven",
    "python -m tests.kernels.mutants": "tests/kernels/test_proof.py::test_every_mutant_is_flagged",
    "pyrf train tiny-lora": HOURS + "tests/training/lora/test_lora.py::test_a_run_gives_the_same_file_again",
    "pyrf train tiny --out": HOURS + CHAIN,
    "pyrf train valley": HOURS + CHAIN,
    "pyrf eval gates": HOURS + GATES,
    "pyrf eval study": HOURS + STUDY,
    "pyrf eval ab-results": "tests/evaluation/ab/test_page.py::test_the_true_order_comes_back",
    "tensorboard": "shows what a training of hours wrote",
}
"""Lines, by how they begin, that are not run here: the test that runs them, or why none does."""
SLOW = (
    'pyrf generate "dunes at dawn, the camera pans right" -o - |',
    'pyrf generate "the sea at dawn" -o - --raw |',
    ".venv/bin/python benchmarks/",
    "python benchmarks/",
    "pytest ",
    ".venv/bin/pytest ",
    "pyrf export ",
    'pyrf generate "a red circle moves right" -o out.mp4 --model tiny --backend onnxruntime --exported',
    "python -m tests.memory.measure_stream DIR --backend",
    "pyrf eval --",
    "pyrf eval world",
    "pyrf train wan-1.3b-redmd --dry-run",
    "python -m pyrf.training.card",
    "python -m pyrf.training.valley.detector",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)
"""Lines, by how they begin, that take long: they run with -m slow."""
CHANGES = (
    (r"--device cuda", "--device cpu"),
    (r"--port \d+", "--port 0"),
    (r"--threads \d+", "--threads 1"),
    (r"PYRF_TOKEN=\.\.\.", "PYRF_TOKEN=choose-a-long-secret"),
    (r"/run/pyrf/pyrf\.sock", "pyrf.sock"),
    (r"--config deploy/", f"--config {ROOT}/deploy/"),
    (r"-o - \| ffplay -", "-o - --seconds 1 | ffplay -autoexit -"),
    (r"^(.* -o - --raw)", r"PYRF_MODEL=valley \1 --seconds 1"),  # whose size the page gives
    (r"rtsp://camera/stream", "clip.mp4"),
    (r"JaydenLu666/Reward-Forcing-T2V-1\.3B/", ""),
    (r"--seconds 1:30 --at 0:45:", "--seconds 0:03 --at 0:01:"),
    (r"--seconds 10 --at 5:", "--seconds 2 --at 1:"),
    (r"--seconds (60|1:00:00)", "--seconds 1"),
    (r"(pyrf bench(?!.*--roofline).*)$", r"\1 --seconds 1 --repeats 1 --warm-up 1"),
    (r"(pyrf generate .*--gpus-per-stream 2|--no-python pyrf generate .*)$", r"\1 --seconds 1"),
    (r"--scenes 1000 --steps 1500", "--scenes 250 --steps 2 --batch 2"),
    (r"(benchmarks/cpu_ops\.py .*)$", r"\1 --repeats 1"),
    (r"--threads 1 --rounds 2", "--threads 1 --rounds 1"),
    (r"(benchmarks/fp8_attention\.py .*)$", r"\1 --prompts 1 --seconds 6 --seeds 1"),
    (r"prompts_over_time\.py --seeds 4", "prompts_over_time.py --seeds 1"),
    (r"(benchmarks/lockstep\.py .*)$", r"\1 --counts 1 2 --repeats 1"),
    (r"(benchmarks/serve_load\.py .*)$", r"\1 --no-ray --viewers 1 --repeats 1 --cycles 2 --messages 10"),
    (r"--only-abuse --seconds 6", "--only-abuse --seconds 1"),
    (r"(serve_load\.py (?!.*--seconds).*)$", r"\1 --seconds 1"),
    (r"--shard 1/8", "--shard 1/1"),
    (r"^(pyrf eval vbench sample .*)$", rf"\1 --frames 9 --height {HEIGHT} --width {WIDTH}"),
    (r"^(pyrf eval vbench-long sample .*)$", rf"\1 --frames 165 --height {HEIGHT} --width {WIDTH}"),
    (r"^(pyrf eval vbench(?:-long)? score .*)$", r"\1 --device cpu --dimension imaging_quality"),
    (r"^(pyrf eval (?:--|world).*)$", r"\1 --prompts 1"),
)
"""What a line has, and what it has here: no GPU, a port that is free, seconds for minutes, and so on."""
pytestmark = pytest.mark.long


def here(page: str) -> list[str]:
    """Lines of a page that are run by the tests below."""
    return [line for line in LINES[page] if not line.startswith(tuple(NOT_HERE))]


def quick(page: str) -> list[str]:
    return [line for line in here(page) if not line.startswith(SLOW)]


def test_lines_are_found() -> None:
    assert sum(map(len, LINES.values())) > 200


def test_the_table_is_of_lines_and_tests_that_there_are() -> None:
    lines = [line for page in LINES.values() for line in page]
    assert not [begin for begin in (*NOT_HERE, *SLOW) if not any(line.startswith(begin) for line in lines)]
    named = re.findall(r"(tests/\S+\.py)::(\w+)", " ".join(NOT_HERE.values()))
    assert not [(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with random weights, which reads long prompts; its streams take milliseconds."""
    config = replace(networks.MODEL, text_len=64)
    return save_random_bundle(tmp_path_factory.mktemp("bundles") / "small", model_config=config)


@pytest.fixture
def follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> Iterator[Callable[[str, list[str]], None]]:
    """Runs lines of a page in a folder with what they speak of, beside receivers and servers of others."""
    fork_ranks(monkeypatch)
    monkeypatch.setenv("PYRF_MODEL", str(bundle))
    changes = [(r"Wan-AI/Wan2\.\d-\S+-Diffusers|/models/mine|\bDIR\b", str(bundle))]
    changes += [(r"(export|--model) tiny(?= --out exported| --backend)", rf"\1 {bundle}"), *CHANGES]
    with ExitStack() as stack:

        def run(page: str, lines: list[str]) -> None:
            text = "\n".join(lines)
            if "rtmp://" in text:
                (received := tmp_path / "received").mkdir()
                stack.enter_context(rtmp_server(received, port := free_port()))
                changes.append((r"rtmp://[\w.]+/(app/KEY|live/show)", f"rtmp://127.0.0.1:{port}/live/show"))
            if "srt://127.0.0.1:9000" in text:
                address = f"srt://127.0.0.1:{free_port()}"
                stack.enter_context(recorder(f"{address}?mode=listener", tmp_path / "received.ts"))
                changes.append((r"srt://127\.0\.0\.1:9000", address))
            if "http://localhost:11434/v1" in text:
                endpoint = stack.enter_context(chat_endpoint(lambda *_: as_chat("a red circle")))
                changes.append((r"http://localhost:11434/v1", endpoint.url))
            reader = stack.enter_context(Reader(tmp_path, monkeypatch, tuple(changes)))
            make_files(text)
            for kind, block in BLOCKS.findall((ROOT / page).read_text()):
                if kind == "yaml" and "story.yaml" in text:
                    Path("story.yaml").write_text(block)
            if f"--server {SERVER}" in text and "pyrf serve" not in text:
                reader.run(f"pyrf serve --model {bundle} --model tiny")
            for line in lines:
                reader.run(line)

        yield run


@pytest.mark.parametrize("page", [page for page in LINES if quick(page)])
def test_lines_of_a_page_run(page: str, follow: Callable[[str, list[str]], None]) -> None:
    follow(page, quick(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in LINES if here(page) != quick(page)])
def test_all_lines_of_a_page_run(page: str, follow: Callable[[str, list[str]], None]) -> None:
    follow(page, here(page))
