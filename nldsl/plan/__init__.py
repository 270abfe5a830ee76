"""Plans: which lowering computes which part of a block, and why."""
