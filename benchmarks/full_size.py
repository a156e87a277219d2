"""One chunk of the full-size 1.3B network on this machine: seconds and peak memory. By hand; slow.

    python benchmarks/full_size.py --threads 2

Random weights in bfloat16, latents of 480x832, 4 denoise calls and the clean call. The cache is as large as
that of a long stream, but the first chunk sees only itself; `--chunks 3` fills the window.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from pyrf.backends.torch import TorchBackend
from pyrf.bench import peak_rss_mib, processor
from pyrf.config import ModelConfig, StreamConfig
from pyrf.models.dit import WanModel
from pyrf.sampler import ChunkLoop, SeededNoise

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def random_model(config: ModelConfig, dtype: torch.dtype) -> WanModel:
    """A model whose weights exist in `dtype` only, never in a wider one."""
    with torch.device("meta"):
        model = WanModel(config)
    model = model.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        parameter.normal_(std=fan_in**-0.5, generator=generator)
    return model


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=1)
    parser.add_argument("--layers", type=int, default=30, help="fewer for a quick look")
    parser.add_argument("--height", type=int, default=60, help="of the latents")
    parser.add_argument("--width", type=int, default=104, help="of the latents")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    start = time.perf_counter()
    config, stream = ModelConfig(num_layers=arguments.layers), StreamConfig()
    model = random_model(config, DTYPES[arguments.dtype])
    backend = TorchBackend(model, stream)
    backend.start(1, arguments.height, arguments.width)
    backend.set_prompt(torch.randn(1, config.text_len, config.text_dim))
    shape = (stream.chunk_frames, config.in_channels, arguments.height, arguments.width)
    loop = ChunkLoop(backend, stream, SeededNoise([0], shape))
    ready_s = time.perf_counter() - start
    seconds = []
    for _ in range(arguments.chunks):
        start = time.perf_counter()
        latents = loop.next_chunk()
        seconds.append(time.perf_counter() - start)
    if not latents.isfinite().all():
        raise SystemExit("the latents are not finite")

    result = {
        **vars(arguments),
        "processor": processor(),
        "torch": torch.__version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "ready_s": ready_s,
        "chunk_s": seconds,
        "peak_rss_mib": peak_rss_mib(),
    }
    print(f"{result['parameters'] / 1e9:.2f} B parameters, {arguments.dtype}, {arguments.threads} threads")
    print(f"ready after {ready_s:.1f} s; chunks took " + ", ".join(f"{s:.1f} s" for s in seconds))
    print(f"peak RSS {result['peak_rss_mib'] / 1024:.2f} GiB")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
