"""NL04xx: shapes, static values and memories."""

from nldsl.diagnostics.entry import Entry


def _body(*lines: str, head: str = "block f(x)") -> str:
    inner = "\n".join(f"  {line}" for line in lines)
    return f"{head} {{\n{inner}\n}}\n"


def _memory(memory: str, *lines: str, head: str = "block f(x)") -> str:
    return _body(f"level m every 1 token {{ memory S = {memory} }}", *lines, head=head)


_STEP = "S[l2norm(x)] <- x by gd(lr = 0.1)"
_SAFE = "S[l2norm(x)] <- x by proximal(lr = 0.1)"

CODES = {
    "NL0401": Entry(
        "shapes do not fit",
        "The message has both shapes, the labels say where each comes from.",
        _body("return linear(x, 8) + linear(x, 6)"),
        _body("return linear(x, 8) + linear(x, 8)"),
    ),
    "NL0402": Entry(
        "heads do not divide",
        "Channels are cut into heads of equal size, and query heads share memory copies evenly.",
        _body("return merge(l2norm(split(linear(x, 10), 4)))"),
        _body("return merge(l2norm(split(linear(x, 12), 4)))"),
    ),
    "NL0403": Entry(
        "must be known when the program is compiled",
        "Counts, clocks, sizes, options and conditions are static: numbers, parameters, `dim(x)` and "
        "arithmetic on them.",
        _body("return linear(x, x)"),
        _body("return linear(x, dim(x))"),
    ),
    "NL0404": Entry(
        "wrong kind of item",
        "A number, a string, a list, a truth value or a value at a token stands where another is expected.",
        _body('return x + "raw"'),
        _body("return x + 1"),
    ),
    "NL0405": Entry(
        "number out of range",
        "A count is a whole number of at least one; other options have their range.",
        _body("repeat 2.5 { x = 2 * x }", "return x"),
        _body("repeat 2 { x = 2 * x }", "return x"),
    ),
    "NL0406": Entry(
        "number cannot be computed",
        "A division by zero, or a number beyond every size and clock.",
        _body("return linear(x, dim(x) // 0)"),
        _body("return linear(x, dim(x) // 2)"),
    ),
    "NL0408": Entry(
        "changes from copy to copy",
        "Copies of a `repeat` are one program: what is carried keeps its shape, what is static its value.",
        _body("repeat 2 { x = linear(x, 2 * dim(x)) }", "return x"),
        _body("repeat 2 { x = linear(x, dim(x)) }", "return x"),
    ),
    "NL0409": Entry(
        "number of results",
        "As many names stand left of `=` as values right of it.",
        _body("a, b, c = parts(x, dim(x) // 2, dim(x) // 2)", "return a + b + c"),
        _body("a, b = parts(x, dim(x) // 2, dim(x) // 2)", "return a + b"),
    ),
    "NL0410": Entry(
        "a primitive refuses its arguments",
        "The contract of the primitive says what it takes; see `nldsl list`.",
        _body("return merge(readout(x))"),
        _body("return readout(split(x, 4))"),
    ),
    "NL0411": Entry(
        "memory is never read",
        "Nothing depends on a memory that is only written.  In a rule this is a warning: the weight does not "
        "depend on the memory.",
        _memory("matrix()", _STEP, "return x"),
        _memory("matrix()", _STEP, "return S[x]"),
    ),
    "NL0412": Entry(
        "memory is never written and starts empty",
        "Its reads are always zero.",
        _memory("matrix()", "return S[x]"),
        _memory("matrix() init learned", "return S[x]"),
    ),
    "NL0413": Entry(
        "memory is never used",
        "A memory that is neither read nor written has no effect.",
        _memory("matrix()", "return 2 * x"),
        _memory("matrix()", _STEP, "return S[x]"),
    ),
    "NL0415": Entry(
        "memory would never leave zero",
        "Where two weights that are both zero multiply, neither has a gradient: the memory stays as it is.",
        _memory("mlp() init zero", _SAFE, "return S[x]"),
        _memory("mlp() init learned", _SAFE, "return S[x]"),
    ),
    "NL0416": Entry(
        "`per head` without heads",
        "A bare `per head` takes the number of copies from `heads` in scope.",
        _memory("matrix() per head", _STEP, "return S[x]"),
        _memory("matrix() per head(4)", _STEP, "return S[x]"),
    ),
    "NL0417": Entry(
        "memory without weights",
        "A memory holds the weights of its map, and a write steps on them.  What has none is a function: "
        "make it a block.",
        "map plain(z) { return silu(z) }\n" + _memory("plain()", _STEP, "return S[x]"),
        "map plain(z) { return silu(weight(dim(z), dim(z)) @ z) }\n"
        + _memory("plain()", _STEP, "return S[x]"),
    ),
    "NL0418": Entry(
        "gate does not fit",
        "A gate is a scalar, one number per head, per key channel, `values(a)` per value channel, or a "
        "matrix; memories of several weights take scalars.",
        _memory("matrix()", "S *= sigmoid(linear(x, 3))", _STEP, "return S[x]"),
        _memory("matrix()", "S *= sigmoid(linear(x))", _STEP, "return S[x]"),
    ),
    "NL0419": Entry(
        "`init` from something else",
        "A memory starts from zero, from what is learned, or from another memory of the same map and block.",
        _memory("mlp() init T", _SAFE, "return S[x]"),
        _body(
            "level m every 1 token { memory S = mlp() init T }",
            "level n every 1 token { memory T = mlp() }",
            _SAFE,
            "T[l2norm(x)] <- x by proximal(lr = 0.1)",
            "return S[x] + T[x]",
        ),
    ),
    "NL0420": Entry(
        "the weight has no such view",
        "`x` and `dy` are the input and the output gradient of a weight used as `W @ x`; an objective "
        "that takes the memory takes a memory of one matrix.",
        _memory("linear()", "S[l2norm(x)] <- x by dgd(lr = 0.1)", "return S[x]"),
        _memory("matrix()", "S[l2norm(x)] <- x by dgd(lr = 0.1)", "return S[x]"),
    ),
    "NL0421": Entry(
        "clause without meaning here",
        "The non-parametric memory minimises nothing, a task write has its objective already, a rule that "
        "looks at single tokens has none at a commit, and clauses of a write as a whole are given once.",
        _body("memory A = softmax()", "A[x] <- x by gd(lr = 0.1)", "return A[x]"),
        _body("memory A = softmax()", "A[x] <- x", "return A[x]"),
    ),
    "NL0422": Entry(
        "memory of the block around `repeat`",
        "Copies of a `repeat` have their own memories; one of the enclosing block would be shared.",
        _memory("matrix()", "repeat 2 { x = x + S[x] }", _STEP, "return S[x]"),
        _memory("matrix()", "repeat 2 { x = x + linear(x) }", _STEP, "return S[x]"),
    ),
    "NL0423": Entry(
        "memory of a rule",
        "A memory of a rule is `like(W)`, or a map such as `residual_mlp()`; it has no heads of its own.",
        "rule r(lr) { memory m = softmax(); m = g; W = W - lr * m }\n"
        "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"
        "train m { rest by r(lr = 0.1) }\n",
        "rule r(lr) { memory m = like(W); m = g; W = W - lr * m }\n"
        "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"
        "train m { rest by r(lr = 0.1) }\n",
    ),
    "NL0425": Entry(
        "not supported yet",
        "The language has the construct, this version does not elaborate it; the message names it.",
        "map scaled(z) { W1 = weight(dim(z), dim(z)); return norm(W1 @ z) }\n"
        "rule r(lr) { memory m = scaled(); m[g] <- 1 minimize dot by gd(lr = lr); W = W + m[g] }\n",
        "map plain(z) { W1 = weight(dim(z), dim(z)); return W1 @ z }\n"
        "rule r(lr) { memory m = plain(); m[g] <- 1 minimize dot by gd(lr = lr); W = W + m[g] }\n",
    ),
    "NL0426": Entry(
        "number a rule cannot work with",
        "In `train`, behind `minimizes task by` and in `nldsl.optimizer` the arguments `lr`, `eps`, `decay` "
        "and `momentum` are not negative, and a `beta` that is the share of an average "
        "(`beta * m + (1 - beta) * g`, `unbias(m, beta)`) is from 0 to below 1, as in `torch.optim`.  Every "
        "number is finite.",
        "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\ntrain m { rest by adamw(lr = -0.1) }\n",
        "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\ntrain m { rest by adamw(lr = 0.1) }\n",
    ),
    "NL0424": Entry(
        "`minimizes` without the task",
        "`F minimizes task` takes the gradient of the model's own loss; a local objective is a write.",
        _body("level f every 4 tokens { memory F = mlp() }", "F minimizes l2 by gd(lr = 0.1)", "return F[x]"),
        _body(
            "level f every 4 tokens { memory F = mlp() }", "F minimizes task by gd(lr = 0.1)", "return F[x]"
        ),
    ),
}
