"""NL03xx: names, arguments and definitions."""

from nldsl.diagnostics.entry import Entry

_MEMORY = "level m every 1 token { memory S = matrix() }"


def _body(*lines: str) -> str:
    inner = "\n".join(f"  {line}" for line in lines)
    return f"block f(x) {{\n{inner}\n}}\n"


def _write(clauses: str) -> str:
    return _body(_MEMORY, "k = l2norm(x)", f"S[k] <- x {clauses}", "return S[k]")


_MODEL = "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"

CODES = {
    "NL0301": Entry(
        "unknown name",
        "The name is no parameter, variable, memory or definition that can be seen here.",
        _body("y = 2 * x", "return x + w * y"),
        _body("y = 2 * x", "return x + x * y"),
    ),
    "NL0302": Entry(
        "unknown function",
        "What is called is no primitive and no block of this file, the files it uses, or the library.",
        _body("return sigmod(x)"),
        _body("return sigmoid(x)"),
    ),
    "NL0303": Entry(
        "unknown map",
        "A memory is `matrix()`, `softmax()`, or a `map` that is defined here or in the library.",
        _body("level m every 1 token { memory S = mpl() }", "S[x] <- x by proximal(lr = 0.1)", "return S[x]"),
        _body("level m every 1 token { memory S = mlp() }", "S[x] <- x by proximal(lr = 0.1)", "return S[x]"),
    ),
    "NL0304": Entry(
        "unknown objective",
        "Behind `minimize` stands an `objective` that is defined here or in the library.",
        _write("minimize l3 by gd(lr = 0.1)"),
        _write("minimize l2 by gd(lr = 0.1)"),
    ),
    "NL0305": Entry(
        "unknown rule",
        "Behind `by` stands a `rule` that is defined here or in the library.",
        _write("by gdd(lr = 0.1)"),
        _write("by gd(lr = 0.1)"),
    ),
    "NL0306": Entry(
        "unknown argument",
        "A definition takes the arguments its header names, a primitive the options its contract lists.",
        _write("by gd(rate = 0.1, lr = 0.1)"),
        _write("by gd(lr = 0.1)"),
    ),
    "NL0307": Entry(
        "too many arguments",
        "More arguments stand in a call than the definition has parameters.",
        _body("return sigmoid(x, x)"),
        _body("return sigmoid(x)"),
    ),
    "NL0308": Entry(
        "missing argument",
        "A parameter without default was not given, or a write has no rule: nothing is assumed in silence.",
        _write(""),
        _write("by gd(lr = 0.1)"),
    ),
    "NL0309": Entry(
        "argument given twice",
        "An argument is given once: by position or by name.",
        _body("return swiglu(x, 2, expand = 3)"),
        _body("return swiglu(x, expand = 3)"),
    ),
    "NL0310": Entry(
        "defined twice",
        "Names are one per kind and file, memories and levels one per block.  Of two definitions only one "
        "could be meant.",
        "block f(x) { return x }\nblock f(x) { return 2 * x }\n",
        "block f(x) { return x }\nblock g(x) { return 2 * x }\n",
    ),
    "NL0311": Entry(
        "parameter declared twice",
        "Parameters of one definition have different names.",
        "block f(x, n = 2, n = 3) { return n * x }\n",
        "block f(x, n = 2, k = 3) { return n * k * x }\n",
    ),
    "NL0312": Entry(
        "used before it is assigned",
        "Statements run from top to bottom at every token; what a later statement assigns is not known yet.",
        _body("y = 2 * z", "z = x + y", "return z"),
        _body("z = 2 * x", "y = x + z", "return y"),
    ),
    "NL0313": Entry(
        "not in this place",
        "Maps, objectives and rules are plain functions of one token: hidden state, memories and "
        "optimiser words have their own places.",
        "map f(z) { return conv(z, 4) }\n"
        + _body("level m every 1 token { memory S = f() }", "S[x] <- x by proximal(lr = 0.1)", "return S[x]"),
        "map f(z) { return weight(dim(z), dim(z)) @ z }\n"
        + _body("level m every 1 token { memory S = f() }", "S[x] <- x by proximal(lr = 0.1)", "return S[x]"),
    ),
    "NL0314": Entry(
        "of another kind",
        "Blocks, maps, objectives, rules, memories and values are told apart by where they stand.",
        _body("return mlp(x)"),
        _body("return swiglu(x)"),
    ),
    "NL0315": Entry(
        "calls in a circle",
        "A block that calls itself, directly or through others, would never end; the message has the path.",
        "block f(x) { return g(x) }\nblock g(x) { return f(x) }\nblock h(x) { return f(x) }\n",
        "block f(x) { return g(x) }\nblock g(x) { return 2 * x }\nblock h(x) { return f(x) }\n",
    ),
    "NL0316": Entry(
        "`use` of a file that cannot be used",
        "`use` names a file below the folder of the program, or one of the library; nothing else is read.",
        'use "../../etc/passwd.nl"\nblock f(x) { return x }\n',
        'use "blocks/cms.nl"\nblock f(x) { return x }\n',
    ),
    "NL0317": Entry(
        "`use` in a circle",
        "A file that uses itself, directly or through others, has no beginning; the message has the path.",
    ),
    "NL0318": Entry(
        "unknown model",
        "`train` and `variant` name a model of this file, of a file it uses, or of the library.",
        "variant small of hop(depth = 2)\n",
        "variant small of hope(depth = 2)\n",
    ),
    "NL0319": Entry(
        "width of an input is missing",
        "A block on its own takes streams of any width; compiled alone it needs to be told.",
    ),
    "NL0320": Entry(
        "nothing to elaborate",
        "The file has no model and no block, or none of the name that was asked for.  Files of maps, "
        "objectives and rules alone can be checked; a file with nothing in it cannot be meant.",
        "# later\n",
        "block twice(x) { return 2 * x }\n",
    ),
    "NL0321": Entry(
        "unknown memory",
        "What is read or written with `[...]` was not declared as a memory in this block.",
        _body("return T[x]"),
        _write("by gd(lr = 0.1)"),
    ),
    "NL0322": Entry(
        "name is taken",
        "A definition must not hide a primitive or a word of the language.",
        "block sigmoid(x) { return x }\n",
        "block my_sigmoid(x) { return x }\n",
    ),
    "NL0323": Entry(
        "variable is never read",
        "A warning: the statement has no effect, most likely a name is misspelt somewhere.",
        _body("y = 2 * x", "z = 3 * y", "return y"),
        _body("y = 2 * x", "z = 3 * y", "return z"),
    ),
    "NL0324": Entry(
        "nothing is returned",
        "Blocks, models, maps and objectives end with `return`; a rule gives `W` a new value.",
        "block f(x) { if 1 > 2 { return x } }\n",
        "block f(x) { if 1 > 2 { return x } else { return 2 * x } }\n",
    ),
    "NL0325": Entry(
        "statements behind `return`",
        "`return` ends a body; what stands behind it would never run.",
        _body("return x", "x = 2 * x"),
        _body("x = 2 * x", "return x"),
    ),
    "NL0326": Entry(
        "`self` outside of `write each`",
        "`self` is the memory that a `write each` writes at the moment.",
        _body(_MEMORY, "k = l2norm(x)", "S[k] <- self[2 * k] by gd(lr = 0.1)", "return S[k]"),
        _body(
            _MEMORY, "k = l2norm(x)", "write each of S { [k] <- self[2 * k] by gd(lr = 0.1) }", "return S[k]"
        ),
    ),
    "NL0328": Entry(
        "option without effect",
        "A parameter that nothing uses misleads whoever sets it.",
        "block f(x, heads = 4) { return 2 * x }\n",
        "block f(x, heads = 4) { return merge(l2norm(split(x, heads))) }\n",
    ),
    "NL0329": Entry(
        "two parameters of one path",
        "Parameters are named by path in checkpoints and by `train`; a path means one of them.",
        "block g(x) { a = h(x); h = linear(x); return a + h }\n"
        "block h(x) { linear = weight(dim(x)); return x * linear }\n",
        "block g(x) { a = h(x); y = linear(x); return a + y }\n"
        "block h(x) { linear = weight(dim(x)); return x * linear }\n",
    ),
}
