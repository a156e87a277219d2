"""What is traced: a bundle's networks as ONNX graphs."""
