"""Judging a trained model: bits per byte on held-out text, byte-count baselines, generation."""
