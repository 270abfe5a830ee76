"""NL082x: what other distributions add."""

from nldsl.diagnostics.entry import Entry

CODES = {
    "NL0821": Entry(
        "component does not import",
        "A package that a distribution names under `nldsl.components`, or a file in it, raises an error when "
        "it is imported, or cannot be read. It is left out; everything else works. `nldsl doctor` lists "
        "components.",
    ),
    "NL0822": Entry(
        "component takes a name that exists",
        "Primitives, lowerings and specifications of components may not replace those that are there: the "
        "older one stays, so that a program means the same whatever else is installed.",
    ),
    "NL0823": Entry(
        "component of the wrong type",
        "An entry point names a package; a file in `primitives` declares a `Primitive` called as the file "
        "is, a file in `lowerings` a `Lowering`.",
    ),
}
