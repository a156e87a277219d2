"""TensorRT: everything that it needs to run."""
