"""NL02xx: the YAML form."""

from nldsl.diagnostics.entry import Entry

_GOOD = "nldsl: 1\nblock f:\n  takes: [x]\n  body:\n    - return x\n"

CODES = {
    "NL0201": Entry(
        "not YAML",
        "The file does not follow the rules of YAML itself; most often quotes or indentation are missing.",
        _GOOD.replace("[x]", "[x"),
        _GOOD,
        "yaml",
    ),
    "NL0202": Entry(
        "key twice",
        "A mapping has every key once; YAML would silently take the last.",
        _GOOD + "  body:\n    - return 2 * x\n",
        _GOOD,
        "yaml",
    ),
    "NL0203": Entry(
        "tag",
        "Tags such as `!!python/object` make YAML construct objects; programs have none.",
        _GOOD.replace("[x]", "!!set [x]"),
        _GOOD,
        "yaml",
    ),
    "NL0204": Entry(
        "anchor or alias",
        "Anchors and aliases can make a small file expand without bound; programs have none.",
        _GOOD.replace("[x]", "&a [x]"),
        _GOOD,
        "yaml",
    ),
    "NL0205": Entry(
        "unknown key",
        "Every mapping of the YAML form has a fixed set of keys; the help names the nearest or all of them.",
        _GOOD.replace("takes", "take"),
        _GOOD,
        "yaml",
    ),
    "NL0206": Entry(
        "wrong kind of node",
        "A list, a mapping or a text stands where another of the three is expected.",
        "nldsl: 1\nblock f: [x]\n",
        _GOOD,
        "yaml",
    ),
    "NL0207": Entry(
        "missing key or value",
        "The mapping lacks a key that it cannot do without, or nothing stands behind the key.",
        "nldsl: 1\nblock f:\n  takes: [x]\n  body:\n    - repeat:\n      body: [x = x + 1]\n    - return x\n",
        _GOOD,
        "yaml",
    ),
    "NL0208": Entry(
        "YAML too large or nested too deep",
        "A YAML file has at most 262,144 characters and 20,000 nodes, at most 64 deep.",
        "nldsl: 1\nblock f: " + "[" * 70 + "]" * 70 + "\n",
        _GOOD,
        "yaml",
    ),
    "NL0209": Entry(
        "several documents",
        "One file is one program; `---` would begin a second.",
        _GOOD + "---\n" + _GOOD,
        _GOOD,
        "yaml",
    ),
}
