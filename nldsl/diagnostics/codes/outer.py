"""NL06xx: the outer levels: what a loss reaches, who trains what."""

from nldsl.diagnostics.entry import Entry

_MODEL = "model m(tokens) { return head(embed(tokens, 16, 8), 16) }\n"

CODES = {
    "NL0601": Entry(
        "parameter that no loss reaches",
        "Nothing the model returns depends on it in a way that has a gradient, so it would never learn. "
        "`detach(weight(...))`, written so, is meant: numbers drawn once that stay (random features). "
        "So is `init fixed`: a memory that starts as it is drawn, and whose start never learns.",
        "block f(x) { return x * detach(linear(x)) }\n",
        "block f(x) { return x * linear(x) }\n",
    ),
    "NL0602": Entry(
        "nobody trains a parameter",
        "Every slow parameter is claimed by exactly one group of `train`.",
        _MODEL + "train m { head by sgd(lr = 0.1) }\n",
        _MODEL + "train m { head by sgd(lr = 0.1); rest by sgd(lr = 0.1) }\n",
    ),
    "NL0603": Entry(
        "a selector that matches nothing",
        "Selectors are roles or quoted globs over paths; first match wins.",
        _MODEL + 'train m { "*.conv.*" by sgd(lr = 0.1); rest by sgd(lr = 0.1) }\n',
        _MODEL + 'train m { "*.embed.*" by sgd(lr = 0.1); rest by sgd(lr = 0.1) }\n',
    ),
    "NL0604": Entry(
        "unknown line of `train`",
        "Settings are `task`, `truncate`, `clip` and `learn_generated`; the rest are levels and groups.",
        _MODEL + "train m { task next_word; rest by sgd(lr = 0.1) }\n",
        _MODEL + "train m { task next_token; rest by sgd(lr = 0.1) }\n",
    ),
    "NL0605": Entry(
        "a schedule that does not work",
        "A schedule takes its value and options, and is given by name.",
        _MODEL + "train m { rest by sgd(lr = cosine(0.1, warm = 10)) }\n",
        _MODEL + "train m { rest by sgd(lr = cosine(0.1, warmup = 10)) }\n",
    ),
    "NL0607": Entry(
        "a rule on weights it cannot train",
        "Rules such as `muon` look at a weight as a matrix; biases, norms and other vectors need another. "
        "`if rank(W) == 2 { ... } else { ... }` lets one rule say what it does with both.",
        _MODEL.replace("embed(tokens, 16, 8)", "norm(embed(tokens, 16, 8))")
        + "train m { rest by muon(lr = 0.1) }\n",
        _MODEL.replace("embed(tokens, 16, 8)", "norm(embed(tokens, 16, 8))")
        + "train m { norms by adamw(lr = 0.1); rest by muon(lr = 0.1) }\n",
    ),
}
