"""What a machine can do and does: bench, doctor, roofline, kernels."""
