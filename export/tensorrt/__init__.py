"""What is compiled: TensorRT's engines."""
