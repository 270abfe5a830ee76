"""NL11xx: models and weights of other libraries."""

from nldsl.diagnostics.entry import Entry

CODES = {
    "NL1101": Entry(
        "something stands in the place of the output",
        "`export` and `import` write a new folder. `--force` replaces one that the same command wrote, and "
        "nothing else.",
    ),
    "NL1103": Entry(
        "not a causal language model",
        "transformers knows models of one stream of tokens; the model reads other streams too.",
    ),
}
