"""A bundle for other runtimes: ONNX graphs, and TensorRT's engines of them."""
