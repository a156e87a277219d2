"""Run by the Python of VBench's own environment, which need not have pyrf: scores a folder on one dimension.

python inside.py VIDEOS OUT DIMENSION MODE INFO DEVICE
"""

from __future__ import annotations

import sys


def main(videos: str, out: str, dimension: str, mode: str, info: str, device: str) -> None:
    """Write `{dimension}_eval_results.json` into a folder, as VBench does.

    Args:
        mode: VBench's, "vbench_standard" or "custom_input".
        info: VBench_full_info.json.
    """
    import torch
    import vbench

    vbench.VBench(torch.device(device), info, out).evaluate(
        videos_path=videos,
        name=dimension,
        dimension_list=[dimension],
        mode=mode,
        imaging_quality_preprocessing_mode="longer",  # as VBench's own command has it
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
