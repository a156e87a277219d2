"""What attention in e4m3 does to pictures, on a CPU, which imitates its rounding.

    python benchmarks/fp8_attention.py --model tiny --world shapes --out fp8.json

Three parts, each written as soon as it is there; the command goes on where it stopped:

- errors: relative L2 of attention on a stream's own q, k and v, against float64: with one tensor rounded to
  e4m3 at a time, with all, with a scale for each head's v, and with q, k and v in bfloat16.
- roll-out: how far latents of the same noise are from float32's, chunk by chunk, with each of these and
  whole.
- minutes: `pyrf eval world --only minute`, for each seed and precision: what the last 5 s of streams show.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from pyrf.evaluation.report.examined import Examined
from pyrf.evaluation.report.lasting import lasting
from pyrf.files import whole_file
from pyrf.models.dit import attention as seam
from pyrf.ops import ring_attention
from pyrf.ops.e4m3 import LARGEST, WEIGHT_SCALE, attend, to_e4m3
from pyrf.pipeline import StreamingPipeline
from pyrf.threads import set_threads
from pyrf.worlds.choice import world_type
from pyrf.worlds.world import Frames, World, WorldPrompt

ERROR_CHUNKS, ROLL_OUT_CHUNKS, ROLL_OUT_PROMPTS = 5, 3, 6
SEED_STEP = 1000
"""Between the seeds of runs; a run's prompt n has the seed of the run plus n."""


@dataclass(frozen=True)
class Shifted(Examined):
    """Streams with other seeds than the report's."""

    first_seed: int = 0

    def chunks(
        self,
        prompts: list[WorldPrompt],
        seeds: range,
        num_frames: int,
        later: Mapping[int, list[WorldPrompt]] | None = None,
    ) -> Iterator[Frames]:
        shifted = range(seeds.start + self.first_seed, seeds.stop + self.first_seed)
        return super().chunks(prompts, shifted, num_frames, later)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())


def rounded(x: Tensor) -> Tensor:
    return to_e4m3(x).to(x.dtype)


def rounded_weights(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q.double() @ k.double().mT * q.shape[-1] ** -0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return rounded(weights * WEIGHT_SCALE) @ v.double() / (weights.sum(-1, keepdim=True) * WEIGHT_SCALE)


def scaled_values(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All in e4m3, and each head's v scaled so that its largest number is e4m3's."""
    scale = v.abs().amax((-2, -1), keepdim=True) / LARGEST
    return in_e4m3(q, k, v / scale) * scale


def in_e4m3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return attend(q, to_e4m3(k), to_e4m3(v), k.shape[2])


def in_bfloat16(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return exact(q.bfloat16(), k.bfloat16(), v.bfloat16())


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "q in e4m3": lambda q, k, v: exact(rounded(q), k, v),
    "k in e4m3": lambda q, k, v: exact(q, rounded(k), v),
    "v in e4m3": lambda q, k, v: exact(q, k, rounded(v)),
    "softmax's weights in e4m3": rounded_weights,
    "all in e4m3": in_e4m3,
    "all in e4m3, v scaled by head": scaled_values,
    "q, k and v in bfloat16": in_bfloat16,
}


Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def attention_is(attend: Attend) -> AbstractContextManager[object]:
    """Inside, self-attention over the cache is another one."""
    return patch.object(seam, "ring_attention", attend)


def recorded(pipe: StreamingPipeline, prompt: str) -> list[tuple[Tensor, Tensor, Tensor]]:
    """q, keys and values of every layer in the last call of a short stream."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(q: Tensor, keys: Tensor, values: Tensor, length: int) -> Tensor:
        calls.append((q.clone(), keys[:, :, :length].clone(), values[:, :, :length].clone()))
        del calls[: -pipe.model_config.num_layers]
        return ring_attention(q, keys, values, length)

    with attention_is(record), pipe.stream(prompt, seed=0) as stream:
        for _ in range(ERROR_CHUNKS):
            next(stream)
    return calls


def errors(pipe: StreamingPipeline, prompt: str) -> dict[str, Any]:
    """By layer: the errors of `WAYS`, and the size of q, k and v."""
    found: dict[str, Any] = {name: [] for name in WAYS}
    found |= {f"{name}: {what}": [] for name in "qkv" for what in ("root mean square", "largest")}
    for tensors in recorded(pipe, prompt):
        expected = exact(*tensors)
        for name, way in WAYS.items():
            got = way(*tensors).double()
            found[name].append(((got - expected).norm() / expected.norm()).item())
        for name, x in zip("qkv", tensors):
            found[f"{name}: root mean square"].append(x.square().mean().sqrt().item())
            found[f"{name}: largest"].append(x.abs().max().item())
    return found


def roll_out(pipe: StreamingPipeline, prompt: str) -> list[Tensor]:
    """Latents of the first chunks, in float64."""
    model = pipe.model
    size = model.latent_size(pipe.height, pipe.width)
    loop = model.backend.open(1, size, model.text_encoder.encode([prompt])).loop([0])
    return [loop.next_chunk().double() for _ in range(ROLL_OUT_CHUNKS)]


def distances(
    pipe: Callable[[str], StreamingPipeline], precisions: list[str], prompt: str
) -> dict[str, list[float]]:
    """Relative L2 from float32's latents, chunk by chunk: of each of `WAYS`, and of whole precisions."""
    plain = pipe("float32")
    expected = roll_out(plain, prompt)
    found = {}
    for name, way in WAYS.items():

        def attend(
            q: Tensor, keys: Tensor, values: Tensor, length: int, way: Callable[..., Tensor] = way
        ) -> Tensor:
            mixed = way(q, keys[:, :, :length], values[:, :, :length])
            return mixed.to(q.dtype).transpose(1, 2).flatten(2)

        with attention_is(attend):
            found[name] = roll_out(plain, prompt)
    found |= {name: roll_out(pipe(name), prompt) for name in precisions}
    return {
        name: [((x - y).norm() / y.norm()).item() for x, y in zip(latents, expected)]
        for name, latents in found.items()
    }


def load(model: str, name: str) -> StreamingPipeline:
    """A pipeline in "float32", "bfloat16", or in float32 with a precision."""
    if name in ("float32", "bfloat16"):
        return StreamingPipeline.from_pretrained(model, dtype=name)
    return StreamingPipeline.from_pretrained(model, precision=name)


def minute(
    pipe: Callable[[str], StreamingPipeline],
    name: str,
    world: World,
    first_seed: int,
    prompts: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """The measures of `pyrf eval world --only minute`."""
    part = lasting(Shifted(pipe(name), world, first_seed), prompts, seconds)
    return [asdict(measure) for measure in part.measures]


class Report:
    """A file of JSON that grows part by part.

    Args:
        path: read, where it is there.
        about: what it is about; a file about something else is refused.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = path
        self.parts: dict[str, Any] = {"about": about}
        if path.exists():
            self.parts = json.loads(path.read_text(encoding="utf-8"))
            if self.parts["about"] != about:
                raise SystemExit(f"{path}: is about {self.parts['about']}, not {about}; give another --out")

    def add(self, name: str, measure: Callable[[], Any]) -> None:
        """Measure a part that is not there, and keep it."""
        if name in self.parts:
            return
        self.parts[name] = measure()
        with whole_file(self.path) as file:
            file.write_text(json.dumps(self.parts, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--world", default="shapes", help="that the model shows: shapes or valley")
    parser.add_argument("--out", type=Path, default=Path("fp8_attention.json"))
    parser.add_argument("--prompts", type=int, default=8, help="of each minute")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a stream")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "fp8-attention"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    world, precisions = world_type(arguments.world)(), arguments.precisions
    about = {name: getattr(arguments, name) for name in ("model", "world", "prompts", "seconds")}
    report, pipe = Report(arguments.out, about), partial(load, arguments.model)
    prompts = [prompt.text for prompt in world.held_out(ROLL_OUT_PROMPTS)]

    report.add("errors", lambda: errors(pipe("float32"), prompts[0]))
    for prompt in prompts:
        report.add(f"roll-out: {prompt}", partial(distances, pipe, precisions, prompt))
    for seed in range(arguments.seeds):
        for name in ("float32", *precisions):
            measure = partial(
                minute, pipe, name, world, SEED_STEP * seed, arguments.prompts, arguments.seconds
            )
            report.add(f"minute, seed {seed}, {name}", measure)


if __name__ == "__main__":
    main()
