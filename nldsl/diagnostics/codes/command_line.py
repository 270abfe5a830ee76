"""NL10xx: the command line."""

from nldsl.diagnostics.entry import Entry

CODES = {
    "NL1000": Entry("internal error", "A fault of nldsl itself; `NLDSL_DEBUG=1` shows where it is."),
    "NL1001": Entry("file does not exist", "A file or folder that a command needs is missing."),
    "NL1002": Entry("not permitted", "A file may not be read or written, or its file system is read-only."),
    "NL1003": Entry("directory instead of a file", "A command expected a file and found a directory."),
    "NL1004": Entry("file instead of a directory", "A path goes on below something that is a file."),
    "NL1005": Entry("no space left", "The disk is full; nothing was written."),
    "NL1007": Entry(
        "package missing",
        "A command needs a package that is not installed; the help says which extra has it.",
    ),
    "NL1006": Entry("operating system error", "Reading or writing failed for the reason given."),
    "NL1010": Entry("setting without `=`", "`--set` takes `NAME=VALUE`."),
    "NL1011": Entry("not a parameter name", "`--set` takes the name of a parameter of the specification."),
    "NL1012": Entry("not a value", "`--set` takes numbers, `true`, `false`, names, quoted text and lists."),
    "NL1013": Entry("set twice", "Each parameter is set at most once."),
    "NL1014": Entry("output is the input", "A command never overwrites the file it reads."),
    "NL1015": Entry("unknown form", "`nldsl graph` writes svg, html, dot, png, pdf or json."),
    "NL1016": Entry("binary on stdout", "A png or pdf is written to a file."),
    "NL1017": Entry("not a name", "A block or model is named by letters, digits and `_`."),
    "NL1018": Entry("file exists", "`nldsl new` never overwrites a file."),
    "NL1020": Entry("`dot` is missing", "png and pdf are drawn by the program `dot` of graphviz."),
    "NL1021": Entry("`dot` failed", "The program `dot` of graphviz could not draw the graph."),
}
