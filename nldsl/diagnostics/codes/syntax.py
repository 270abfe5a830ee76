"""NL01xx: the text does not follow the grammar."""

from nldsl.diagnostics.entry import Entry


def _body(line: str) -> str:
    return f"block f(x) {{\n  {line}\n  return x + y\n}}\n"


CODES = {
    "NL0101": Entry(
        "unexpected word or sign",
        "The statement follows the grammar up to the caret; the message names what could have stood there.",
        _body("y = x + * 2"),
        _body("y = x * 2"),
    ),
    "NL0102": Entry(
        "unknown character",
        "Texts consist of ASCII letters, digits and the signs of the language; comments may hold anything.",
        _body("y = x ^ 2"),
        _body("y = x ** 2"),
    ),
    "NL0103": Entry(
        "string never closed",
        "A string begins and ends with a double quote on one line.",
        'use "blocks/cms.nl\n',
        'use "blocks/cms.nl"\n',
    ),
    "NL0104": Entry(
        "round or square bracket never closed, closed twice, or closed by the other kind",
        "Inside `()` and `[]` a line end means nothing: a forgotten bracket would swallow the lines below.",
        _body("y = linear(x, dim(x)"),
        _body("y = linear(x, dim(x))"),
    ),
    "NL0105": Entry(
        "a `}` too few or too many",
        "Every `{` is closed by a `}` behind the last statement of its body.",
        "block f(x) {\n  repeat 2 {\n    x = x + 1\n  return x\n}\n",
        "block f(x) {\n  repeat 2 {\n    x = x + 1\n  }\n  return x\n}\n",
    ),
    "NL0106": Entry(
        "`{` missing or misplaced",
        "A body begins with `{` on the line of its header.",
        "block f(x)\n{\n  return x\n}\n",
        "block f(x) {\n  return x\n}\n",
    ),
    "NL0107": Entry(
        "two clauses of one kind",
        "Clauses come in any order, one of each kind; two would leave open which one holds.",
        "block f(x) {\n  level c every 1 token { memory M = matrix() init zero }\n"
        "  M[l2norm(x)] <- x  by gd(lr = 1)  by gd(lr = 2)\n  return M[x]\n}\n",
        "block f(x) {\n  level c every 1 token { memory M = matrix() init zero }\n"
        "  M[l2norm(x)] <- x  by gd(lr = 1)\n  return M[x]\n}\n",
    ),
    "NL0108": Entry(
        "`=` and `<-` mixed up",
        "`M[k] <- v` writes to a memory by a step of learning; `a = b` names a value or sets a whole memory.",
        "block f(x) {\n  level c every 1 token { memory M = matrix() init zero }\n"
        "  M[l2norm(x)] = x  by gd(lr = 1)\n  return M[x]\n}\n",
        "block f(x) {\n  level c every 1 token { memory M = matrix() init zero }\n"
        "  M[l2norm(x)] <- x  by gd(lr = 1)\n  return M[x]\n}\n",
    ),
    "NL0109": Entry(
        "colon",
        "Bodies stand in braces and nothing declares a type, so `:` has no meaning.",
        "block f(x):\n  return x\n",
        "block f(x) {\n  return x\n}\n",
    ),
    "NL0110": Entry(
        "word of another language",
        "The statement begins with a word of other languages; the help says what stands here instead.",
        _body("let y = x"),
        _body("y = x"),
    ),
    "NL0111": Entry(
        "misspelt word",
        "Nearly a keyword of the language; British spellings count here too.",
        "block f(x) {\n  retrun x\n}\n",
        "block f(x) {\n  return x\n}\n",
    ),
    "NL0112": Entry(
        "statement in the wrong place",
        "The statement is well formed but cannot stand in this body.",
        "y = 2\n",
        "block two(x) { return 2 * x }\n",
    ),
    "NL0113": Entry(
        "number out of range",
        "Numbers have at most 40 characters and fit a double.",
        _body("y = 1e999 * x"),
        _body("y = 1e9 * x"),
    ),
    "NL0114": Entry(
        "unknown version of the language",
        "`nldsl 1` on the first line says in which version a file is; `nldsl migrate` lifts older ones.",
        "nldsl 7\nblock f(x) { return x }\n",
        "nldsl 1\nblock f(x) { return x }\n",
    ),
    "NL0115": Entry(
        "`else` without `if`",
        "`else` stands behind the closing brace of an `if`.",
        "block f(x) {\n  else { x = 2 * x }\n  return x\n}\n",
        "block f(x) {\n  if 1 > 2 { x = 2 * x } else { x = 3 * x }\n  return x\n}\n",
    ),
    "NL0116": Entry(
        "statement ends too early",
        "Something is still missing at the end of the statement.",
        _body("y = x +"),
        _body("y = x + 1"),
    ),
    "NL0117": Entry(
        "unknown escape in a string",
        'Strings know `\\"`, `\\\\`, `\\n` and `\\t`.',
        'use "blocks\\qcms.nl"\n',
        'use "blocks/cms.nl"\n',
    ),
}
