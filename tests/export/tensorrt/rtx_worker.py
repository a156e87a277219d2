"""The engine builder with TensorRT-RTX, which builds for a GPU that is not there."""

import tensorrt_rtx

from pyrf.export.tensorrt.builder import main


def _for_an_absent_gpu(trt, config):
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)


if __name__ == "__main__":
    main(tensorrt_rtx, _for_an_absent_gpu)
