"""The streaming loop in tensors: noise levels, the few-step sampler, and the cache with its sink."""
