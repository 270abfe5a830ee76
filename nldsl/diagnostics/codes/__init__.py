"""The entries of the catalogue, one file per stage, each with a `CODES` dictionary."""
