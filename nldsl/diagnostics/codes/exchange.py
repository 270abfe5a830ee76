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
    "NL1108": Entry(
        "no program of tensors",
        "`--to torch` and `--to onnx` write the operations of one token with the state in and out. A memory "
        "that commits every so many tokens decides by its counter, and such a program has no decisions.",
    ),
    "NL1104": Entry(
        "an import without a library",
        "`nldsl import` reads `hf:FOLDER`, a local folder that transformers wrote.",
        failing_command="nldsl import model -o run",
        working_command="nldsl list",
    ),
    "NL1105": Entry(
        "not a model folder",
        "The folder has no `config.json` or no safetensors, or one is damaged, or a weight is missing.",
    ),
    "NL1106": Entry(
        "a key that cannot be brought in",
        "The value of this key of `config.json` changes what the model computes, and has no form in a "
        "specification yet. Nothing is left out in silence.",
    ),
    "NL1107": Entry(
        "not a stack",
        "`--stack` takes `cms(chunks = [512, 4096])`, perhaps with `rate`. Feed-forward blocks get the "
        "clocks in turn; each is a multiple of the smallest.",
    ),
}
