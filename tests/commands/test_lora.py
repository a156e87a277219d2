"""`--lora` of the commands that load a model."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.torch import save_file

from pyrf import cli
from pyrf.pipeline import StreamingPipeline
from tests.support import adapters
from tests.support.command_line import PROMPT, generate


@pytest.fixture
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("ink", "snow")):
        save_file(adapters.keys("diffusers", adapters.factors(seed=seed)), folder / f"{name}.safetensors")
    return sorted(folder.iterdir())


def test_generate_takes_several(tmp_path: Path, random_bundle: Path, files: list[Path]) -> None:
    ink, snow = files
    found = generate(
        tmp_path, random_bundle, "--seconds", "1", "--lora", f"{ink}:0.5", "--lora", f"cold={snow}:-1"
    )
    pipe = StreamingPipeline.from_pretrained(str(random_bundle), adapters=[(ink, 0.5), (snow, -1.0)])
    assert np.array_equal(found, pipe(PROMPT, 16).frames)
    plain = generate(tmp_path, random_bundle, "--seconds", "1")
    assert not np.array_equal(found, plain)


def test_the_file_says_which(tmp_path: Path, random_bundle: Path, files: list[Path]) -> None:
    output = tmp_path / "a.mp4"
    options = ["--model", str(random_bundle), "--seconds", "0.5", "--lora", f"cold={files[1]}:0.25"]
    assert cli.run(["generate", PROMPT, "-o", str(output), *options]) == 0
    with av.open(str(output)) as container:
        assert json.loads(container.metadata["comment"])["adapters"] == {"cold": 0.25}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("absent.safetensors:0.5", "no adapter 'absent.safetensors'"),
        (":0.5", "--lora takes [NAME=]FILE[:STRENGTH], got ':0.5'"),
        ("{ink}:99", "must be a number of -10..10, got 99.0"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path,
    random_bundle: Path,
    files: list[Path],
    capsys: pytest.CaptureFixture[str],
    given: str,
    problem: str,
) -> None:
    output = tmp_path / "a.mp4"
    options = ["--model", str(random_bundle), "--lora", given.format(ink=files[0])]
    assert cli.run(["generate", PROMPT, "-o", str(output), *options]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert len(error.splitlines()) == 1
    assert not output.exists()
