"""Chunks of a full-size network on this machine: seconds and peak memory. By hand; slow on a CPU.

    python benchmarks/full_size.py --threads 2
    python benchmarks/full_size.py --device cuda --model 14B --chunks 7

Random weights in bfloat16, latents of 480x832, 4 denoise calls and the clean call. The cache is as large as
that of a long stream, but the first chunk sees only itself; the window is full from the third.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import torch
from random_wan import random_transformer

from pyrf.backends.torch.rollout import TorchRollout
from pyrf.config import LatentSize, StreamConfig
from pyrf.machine import peak_rss_mib, processor
from pyrf.models.wan21 import MODELS

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=1)
    parser.add_argument("--model", choices=["1.3B", "14B"], default="1.3B")
    parser.add_argument("--layers", type=int, help="fewer for a quick look")
    parser.add_argument("--height", type=int, default=60, help="of the latents")
    parser.add_argument("--width", type=int, default=104, help="of the latents")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    start = time.perf_counter()
    config, stream, device = MODELS[f"Wan2.1-T2V-{arguments.model}"], StreamConfig(), arguments.device
    if arguments.layers is not None:
        config = replace(config, num_layers=arguments.layers)
    model = random_transformer(config, DTYPES[arguments.dtype], device)
    size = LatentSize(arguments.height, arguments.width)
    prompt = torch.randn(1, config.text_len, config.text_dim, device=device)
    loop = TorchRollout(model, stream, 1, size, prompt).loop([0])
    ready_s = time.perf_counter() - start
    seconds = []
    for _ in range(arguments.chunks):
        start = time.perf_counter()
        latents = loop.next_chunk().cpu()
        seconds.append(time.perf_counter() - start)
    if not latents.isfinite().all():
        raise SystemExit("the latents are not finite")

    result = {
        **vars(arguments),
        "processor": processor() if device == "cpu" else torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "ready_s": ready_s,
        "chunk_s": seconds,
        "peak_rss_mib": peak_rss_mib(),
        "peak_cuda_mib": None if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**20,
    }
    print(f"{result['parameters'] / 1e9:.2f} B parameters, {arguments.dtype}, {arguments.threads} threads")
    print(f"ready after {ready_s:.1f} s; chunks took " + ", ".join(f"{s:.3f} s" for s in seconds))
    print(f"peak RSS {result['peak_rss_mib'] / 1024:.2f} GiB")
    if result["peak_cuda_mib"] is not None:
        print(f"peak GPU memory {result['peak_cuda_mib'] / 1024:.2f} GiB")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
