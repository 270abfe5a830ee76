"""What is legal and can hardly be meant: memories that blow up or collapse, levels that never fire, leaks."""

from nldsl.diagnostics.entry import Entry


def _memory(write: str, *above: str, clock: str = "every 1 token", memory: str = "matrix()") -> str:
    lines = [
        f"level m {clock} {{ memory S = {memory} }}",
        "k = l2norm(linear(x))",
        *above,
        write,
        "return S[k]",
    ]
    return "block f(x) {\n" + "\n".join(f"  {line}" for line in lines) + "\n}\n"


_GATED = "alpha = sigmoid(mean(linear(x)))"
_CAUSAL = (
    "model m(tokens) {{\n"
    "  memory A = softmax({0})\n"
    "  x = embed(tokens, 16, 8)\n"
    "  A[linear(x)] <- linear(x)\n"
    "  return head(A[linear(x)], 16)\n"
    "}}\n"
)
_SCORES = (
    "model m(tokens) {{\n"
    "  x = embed(tokens, 16, 8)\n"
    "  return {0}\n"
    "}}\n"
    "train m {{\n"
    "  task next_token\n"
    "  level l every 1 step {{ rest, head, embeddings by adamw(lr = 1e-3) }}\n"
    "}}\n"
)
_DEAD = (
    "block f(x) {{\n"
    "  level a every 1 token {{ memory S = matrix() }}\n"
    "  level b every 1 token {{ memory R = matrix() }}\n"
    "  k = l2norm(linear(x))\n"
    "  S[k] <- x  by gd(lr = 0.5)\n"
    "  R[k] <- x - R[k]  by gd(lr = 0.5)\n"
    "  return {0}\n"
    "}}\n"
)

CODES = {
    "NL0331": Entry(
        "argument that nothing reads",
        "The definition uses it in a branch that the other arguments of the call do not take.",
        _memory('S[k] <- x  by dgd(lr = 0.5, rate = "raw", eps = 0.1)'),
        _memory('S[k] <- x  by dgd(lr = 0.5, rate = "normalised", eps = 0.1)'),
    ),
    "NL0332": Entry(
        "nothing to allow",
        "`# allow NL0430: why` on the line of a warning, or above it, says that the author knows.  A comment "
        "that allows what nobody says would hide the next mistake.",
        "# allow NL0430: the rate stays small\n" + _memory("S[k] <- x  by gd(lr = 0.5)"),
        _memory(
            "S[k] <- x  by gd(lr = 4 * eta)  # allow NL0430: the rate stays small",
            "eta = sigmoid(mean(linear(x)))",
        ),
    ),
    "NL0430": Entry(
        "rate for which a memory can blow up",
        "A write takes what a memory holds along a key times one number: `alpha - eta` for a delta rule "
        "with decay `alpha`, `alpha - 2 eta` for delta gradient descent on `l2`, with `||k||^2` behind "
        "`eta` unless the key has length one.  If the ranges of the gates let it leave [-1, 1], a key met "
        "again and again grows without bound.  The ranges are worked out from how the gates are written, "
        "gates that depend on one another included.",
        _memory(
            'S[k] <- x  minimize dot  by dgd(lr = eta, rate = "raw")  retain alpha',
            _GATED,
            "eta = 2 * sigmoid(mean(linear(x)))",
        ),
        _memory(
            'S[k] <- x  minimize dot  by dgd(lr = eta, rate = "raw")  retain alpha',
            _GATED,
            "eta = (1 + alpha) * sigmoid(mean(linear(x)))",
        ),
    ),
    "NL0431": Entry(
        "rate too large for a gradient that is old",
        "In a chunk of C tokens every gradient is taken at the chunk's start.  If one key fills the chunk, "
        "the same error is corrected C times: `1 - C eta ||k||^2` without decay, and 1 / (1 - beta) times "
        "more with momentum.  Below -1 the memory swings ever further.  The note gives the range of rates "
        "that is safe.",
        _memory("S[k] <- x  by gd(lr = eta)", "eta = sigmoid(mean(linear(x)))", clock="every 16 tokens"),
        _memory("S[k] <- x  by gd(lr = eta)", "eta = sigmoid(mean(linear(x))) / 16", clock="every 16 tokens"),
    ),
    "NL0432": Entry(
        "memory that can only collapse",
        "What it holds shrinks, and nothing from outside ever comes in: its target is zero, or its own "
        "answer, or it is only scaled.  After a while it answers zero to everything.",
        _memory("S[k] <- 0  by gd(lr = 0.5)  retain alpha", _GATED, memory="matrix() init learned"),
        _memory("S[k] <- x  by gd(lr = 0.5)  retain alpha", _GATED, memory="matrix() init learned"),
    ),
    "NL0433": Entry(
        "write that changes nothing",
        "Its rate is zero, or its target is what the memory answers already.",
        _memory("S[k] <- x  by gd(lr = 0)"),
        _memory("S[k] <- x  by gd(lr = 0.5)"),
    ),
    "NL0434": Entry(
        "clause without effect",
        "The write would be the same without it: `toward init` where the start is zero or nothing decays, "
        "`retain` of one, `gradient every` where the gradient does not look at the memory.",
        _memory("S[k] <- x  by gd(lr = 0.5)  retain alpha toward init", _GATED),
        _memory(
            "S[k] <- x  by gd(lr = 0.5)  retain alpha toward init", _GATED, memory="matrix() init learned"
        ),
    ),
    "NL0507": Entry(
        "level that never fires",
        "What is written becomes visible when the level ticks.  If a run, a reset or the truncation of "
        "back-propagation comes first, it never does, or nothing learns from it.  "
        "`nldsl check --run-length N` looks at a run of N tokens.",
        _memory(
            "S[k] <- x  by gd(lr = 0.01)", clock="every 64 tokens", memory="matrix() reset every 32 tokens"
        ),
        _memory(
            "S[k] <- x  by gd(lr = 0.01)", clock="every 64 tokens", memory="matrix() reset every 256 tokens"
        ),
    ),
    "NL0508": Entry(
        "dead level",
        "Its memories are written and read, but nothing that is returned depends on what they answer.",
        _DEAD.format("S[k]"),
        _DEAD.format("S[k] + R[k]"),
    ),
    "NL0606": Entry(
        "the future is seen",
        "A model that predicts the next token must not look at later ones, and one that predicts a label "
        "must not use it before it has answered.  A label may be stored: what a write below the read keeps "
        "is seen by later tokens only.",
        _CAUSAL.format("causal = false"),
        _CAUSAL.format("window = 8"),
    ),
    "NL0608": Entry(
        "probabilities where scores are due",
        "The cross entropy of a task takes the softmax of what a model returns. Of probabilities it makes "
        "nearly equal chances: the loss cannot fall far, and nothing else says why.",
        _SCORES.format("softmax(head(x, 16))"),
        _SCORES.format("head(x, 16)"),
    ),
    "NL0609": Entry(
        "root without a slope",
        "The slope of a root at zero is infinite, that of a sum of squares is zero there, and their product "
        "is no number: one vector of zeros makes every gradient NaN.  A small number under the root gives it "
        "a slope; `l2norm` and `norm` have one.",
        "block f(x) { return x / (sqrt(sum(x ** 2)) + 1) }\n",
        "block f(x) { return x / (sqrt(sum(x ** 2) + 1e-6) + 1) }\n",
    ),
}
