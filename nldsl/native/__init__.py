"""Chunk steps compiled to C, one lane at a time."""
