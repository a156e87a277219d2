"""The stages of the tiny recipes, in order: codec, teacher, causal, distill."""
