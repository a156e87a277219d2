"""The CUDA kernels of `csrc/` without torch: what they are compiled for, and their compiler."""
