"""Training of adapters (LoRA): what a bundle draws is changed, and the bundle itself stays as it is."""
