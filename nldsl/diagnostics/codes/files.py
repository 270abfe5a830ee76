"""NL08xx: files, paths and limits."""

from nldsl.diagnostics.entry import Entry

_DEEP, _FLAT = "(" * 70 + "x" + ")" * 70, "(x)"

CODES = {
    "NL0801": Entry("file cannot be read", "The file does not exist, is a folder, or may not be read."),
    "NL0802": Entry("file too large", "A file has at most 1 MiB; larger programs are joined with `use`."),
    "NL0803": Entry("file is not UTF-8", "Programs are UTF-8 text, with or without a byte order mark."),
    "NL0804": Entry(
        "zero byte",
        "Programs are plain text; a zero byte means that the file is something else.",
        "block f(x) { return x }\0\n",
        "block f(x) { return x }\n",
    ),
    "NL0805": Entry(
        "nested too deep",
        "Brackets and braces stand at most 64 deep in one another.",
        f"block f(x) {{ return {_DEEP} }}\n",
        f"block f(x) {{ return {_FLAT} }}\n",
    ),
    "NL0806": Entry("too many words", "A file has at most 20,000 words and signs."),
    "NL0807": Entry(
        "statement too long",
        "A statement has at most 2,000 words and signs, and 100 operations inside one another.",
        f"block f(x) {{ return {'-' * 120}x }}\n",
        "block f(x) { return -x }\n",
    ),
    "NL0808": Entry(
        "name too long",
        "A name has at most 200 characters.",
        f"block {'f' * 201}(x) {{ return x }}\n",
        "block f(x) { return x }\n",
    ),
}
