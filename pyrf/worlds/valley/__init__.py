"""The valley: layered landscapes under a moving camera, with a hot air balloon, at 192 x 320 pixels."""
