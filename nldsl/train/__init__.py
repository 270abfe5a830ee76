"""Training a compiled model on bytes: data, parameter groups, checkpoints, the loop."""
