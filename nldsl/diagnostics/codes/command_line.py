"""NL10xx: the command line."""

from nldsl.diagnostics.entry import Entry


def _entry(title: str, explanation: str, failing: str, working: str) -> Entry:
    return Entry(title, explanation, failing_command=failing, working_command=working)


CODES = {
    "NL1000": Entry("internal error", "A fault of nldsl itself; `NLDSL_DEBUG=1` shows where it is."),
    "NL1001": _entry(
        "file does not exist",
        "A file or folder that a command needs is missing.",
        "nldsl convert good.nl -o missing/good.yaml",
        "nldsl convert good.nl -o good.yaml",
    ),
    "NL1002": Entry("not permitted", "A file may not be read or written, or its file system is read-only."),
    "NL1003": _entry(
        "directory instead of a file",
        "A command expected a file and found a directory.",
        "nldsl convert good.nl -o .",
        "nldsl convert good.nl -o good.yaml",
    ),
    "NL1004": _entry(
        "file instead of a directory",
        "A path goes on below something that is a file.",
        "nldsl ablate hope --write good.nl/rows",
        "nldsl ablate hope --write rows",
    ),
    "NL1005": Entry("no space left", "The disk is full; nothing was written."),
    "NL1007": Entry(
        "package missing",
        "A command needs a package that is not installed; the help says which extra has it.",
    ),
    "NL1006": Entry("operating system error", "Reading or writing failed for the reason given."),
    "NL1010": _entry(
        "setting without `=`",
        "`--set` takes `NAME=VALUE`.",
        "nldsl check hope --set dim",
        "nldsl check hope --set dim=64",
    ),
    "NL1011": _entry(
        "not a parameter name",
        "`--set` takes the name of a parameter of the specification.",
        "nldsl check hope --set a.b=64",
        "nldsl check hope --set dim=64",
    ),
    "NL1012": _entry(
        "not a value",
        "`--set` takes numbers, `true`, `false`, names, quoted text and lists.",
        "nldsl check hope --set dim=4*16",
        "nldsl check hope --set dim=64",
    ),
    "NL1013": _entry(
        "set twice",
        "Each parameter is set at most once.",
        "nldsl check hope --set dim=64 --set dim=128",
        "nldsl check hope --set dim=64 --set depth=2",
    ),
    "NL1014": _entry(
        "output is the input",
        "A command never overwrites the file it reads.",
        "nldsl convert good.nl -o good.nl",
        "nldsl convert good.nl -o good.yaml",
    ),
    "NL1015": _entry(
        "unknown form",
        "The ending of the output, or `--format`, names a form that the command does not write.",
        "nldsl graph good.nl --set x=8 -o good.gif",
        "nldsl graph good.nl --set x=8 -o good.svg",
    ),
    "NL1016": _entry(
        "binary on stdout",
        "A png or pdf is written to a file.",
        "nldsl graph good.nl --set x=8 --format png",
        "nldsl graph good.nl --set x=8 --format svg",
    ),
    "NL1017": _entry(
        "not a name",
        "A block or model is named by letters, digits and `_`.",
        "nldsl new my-layer",
        "nldsl new my_layer",
    ),
    "NL1018": _entry(
        "file exists",
        "`nldsl new` never overwrites a file.",
        "nldsl new good",
        "nldsl new better",
    ),
    "NL1020": Entry("`dot` is missing", "png and pdf are drawn by the program `dot` of graphviz."),
    "NL1021": Entry("`dot` failed", "The program `dot` of graphviz could not draw the graph."),
    "NL1022": _entry(
        "a file is needed",
        "What rewrites or watches files takes the path of one, not stdin or the name of a library program.",
        "nldsl check --fix hope",
        "nldsl check --fix good.nl",
    ),
    "NL1023": _entry(
        "no ablations",
        "There is a table of ablations for the models whose paper has one.",
        "nldsl ablate transformer",
        "nldsl ablate hope",
    ),
    "NL1024": _entry(
        "options that exclude each other",
        "Two options ask for different things; none of them would be ignored in silence.",
        "nldsl check good.nl --json --output sarif",
        "nldsl check good.nl --output sarif",
    ),
    "NL1025": _entry(
        "no such code",
        "`nldsl explain` knows the codes that nldsl can report; `nldsl explain NL` lists them.",
        "nldsl explain NL0499",
        "nldsl explain NL0411",
    ),
    "NL1026": Entry(
        "port not free", "Another program listens on the port, or the system keeps it for itself."
    ),
    "NL1027": Entry(
        "nothing learns from the task",
        "`nldsl run --online` and `nldsl chat --learn` are for models with memories that minimise the task, "
        "such as those of `cms`.",
    ),
    "NL1028": Entry("stream too short", "A byte is learnt from the one behind it: a stream has at least 2."),
    "NL1029": Entry(
        "state of another model",
        "`nldsl chat --load` goes on from a state that `--save` wrote for the same model.",
    ),
    "NL1030": _entry(
        "no such property",
        "`nldsl test` knows the properties that say something about the program; `learning` is of models.",
        "nldsl test good.nl --set x=2 --property speed",
        "nldsl test good.nl --set x=2 --property splits --examples 2",
    ),
    "NL1031": _entry(
        "not a case",
        "`--case` takes the case of a report as it stands there: JSON with tokens, batch, seed and the rest.",
        "nldsl test good.nl --set x=2 --case 3",
        "nldsl test good.nl --set x=2 --case {}",
    ),
    "NL1032": _entry(
        "not two forms",
        "`nldsl bisect --forms A,B` takes two names; of one specification, two different ones.",
        "nldsl bisect good.nl --set x=2 --forms compiled",
        "nldsl bisect good.nl --set x=2 --forms interpreter,compiled --tokens 2",
    ),
    "NL1033": _entry(
        "nothing to hold beside each other",
        "Two sides of `nldsl bisect` take the same inputs, have the forms asked for, and share some value.",
        "nldsl bisect good.nl --set x=2 --forms interpreter,chunk --tokens 2",
        "nldsl bisect good.nl --set x=2 --forms interpreter,compiled --tokens 2",
    ),
    "NL1034": _entry(
        "no certificate that fits",
        "A certificate is of one program with its arguments, and stands beside the file that was compiled.",
        "nldsl compile good.nl --set x=2 --verify",
        "nldsl compile good.nl --set x=2 --verify -o good.py",
    ),
}
