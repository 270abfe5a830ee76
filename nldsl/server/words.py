"""The words of the language in a sentence each, with an example: what hover and completion show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word of the language: what it says, and a line that uses it."""

    text: str
    example: str


WORDS: dict[str, Word] = {
    "block": Word(
        "A function of one token.  Parameters without a default are its inputs; what it remembers "
        "stands in its memories.",
        "block twice(x) { return 2 * x }",
    ),
    "model": Word(
        "The outermost block: its inputs are streams of tokens.",
        "model tiny(tokens, vocab = 256, dim = 64) { return head(embed(tokens, vocab, dim), vocab) }",
    ),
    "map": Word(
        "What a memory computes from a key.  Its `weight` and `linear` are the memory's own (fast) weights.",
        "map linear(z) { return weight(dim(z), dim(z)) @ z }",
    ),
    "objective": Word(
        "What a write makes small: a function of prediction and target.",
        "objective l2(pred, target) { return 0.5 * sum((pred - target) ** 2) }",
    ),
    "rule": Word(
        "How a weight `W` moves, given its gradient `g`; `x` and `dy` are its own input and output gradient, "
        "`step` counts its applications.  Serves in writes and in `train`.",
        "rule gd(lr) { W = W - lr * g }",
    ),
    "train": Word(
        "Who trains the slow parameters of a model, and on which task.",
        "train hope { task next_token; level pretraining every 1 step { rest by adamw(lr = 3e-4) } }",
    ),
    "variant": Word(
        "A model with some of its numbers, clocks or rules changed.",
        "variant big of hope(dim = 512, depth = 12)",
    ),
    "use": Word("Makes the definitions of another file visible.", 'use "layers.nl"'),
    "nldsl": Word("The version of the language a file is written in.", "nldsl 1"),
    "level": Word(
        "Memories that change equally often.  Its braces open no scope.",
        "level context every 1 token { memory S = matrix() per head }",
    ),
    "memory": Word(
        "A dictionary that learns: `M[q]` reads, `M[k] <- v` writes by a step on an inner objective.",
        "memory M = mlp(4) per head init learned",
    ),
    "every": Word(
        "The clock: after how many tokens or steps what was written becomes visible.", "every 16 tokens"
    ),
    "never": Word(
        "Frequency zero: the memory never changes; behind `reset`: state is kept for good.", "never"
    ),
    "tokens": Word("Unit of a clock: unmasked tokens of a sequence since its reset.", "every 64 tokens"),
    "steps": Word("Unit of a clock: steps of the outer training.", "every 10 steps"),
    "sequence": Word(
        "Behind `reset every`: the memory starts anew with each sequence.", "reset every sequence"
    ),
    "per": Word("`per head`: one copy per head, as many as `heads` says.", "matrix() per head(4)"),
    "head": Word(
        "In `per head`: one copy per head.  In `train`: the output layer.", "memory S = matrix() per head"
    ),
    "init": Word(
        "Where a memory starts: `zero`, `learned`, `fixed` or another memory; behind `toward` that state.",
        'memory M = mlp(4) init learned("first")',
    ),
    "zero": Word("The memory starts at zero.", "memory S = matrix() init zero"),
    "learned": Word(
        'The memory starts at a slow parameter; `learned("first")` cuts the meta-gradient at first order.',
        "memory S = matrix() init learned",
    ),
    "fixed": Word(
        "The memory starts as it is drawn from the seed, and that start is never learned: a constant.",
        "memory M = mlp(4) init fixed",
    ),
    "reset": Word(
        "When the state starts anew: every sequence, every N tokens, or never.", "reset every 512 tokens"
    ),
    "write": Word(
        "Several terms on one memory, or one term on several memories, that step together.",
        "write S { [k] <- v minimize l2 by gd(lr = a);  [u] <- 0 minimize l2 by gd(lr = b) }",
    ),
    "each": Word(
        "`write each of A, B`: the same terms on every memory; `self` is the one being written.", ""
    ),
    "of": Word("Behind `each`: the memories to write; behind `variant NAME`: the model it changes.", ""),
    "self": Word(
        "In `write each of ...` the memory being written.",
        "write each of A, B { [k] <- self[v]  by gd(lr = 0.1) }",
    ),
    "minimize": Word(
        "The objective of a write; `l2` if left out.", "S[k] <- v  minimize huber(delta = 1)  by gd(lr = 1)"
    ),
    "minimizes": Word(
        "The memory learns on the task itself; its error counts when the target arrives.",
        "F minimizes task  by gd(lr = 1e-3)",
    ),
    "task": Word(
        "In `train` the objective of the whole model; behind `minimizes` its gradient at this memory.",
        "task next_token",
    ),
    "by": Word("The rule of a step.", "S[k] <- v  by momentum(lr = 0.1, beta = 0.9)"),
    "retain": Word(
        "The gate that keeps: one number, one per head, per key channel, or `values(a)` per value channel.",
        "S[k] <- v  by gd(lr = 1)  retain alpha",
    ),
    "toward": Word("What retention decays to: zero, or `init`.", "retain alpha toward init"),
    "over": Word(
        "The objective sums over the last tokens (Omega rule).", "minimize l2 over 16 tokens  by gd(lr = eta)"
    ),
    "weighted": Word(
        "Weights of the terms of a sum, or of the gradient.", "minimize l2 over 16 tokens weighted gamma"
    ),
    "gradient": Word(
        "`gradient every b tokens`: gradients are taken at the state of the last multiple of b.",
        "S[k] <- v  by gd(lr = eta)  gradient every 16 tokens",
    ),
    "at": Word(
        "`at commit`: gradients are gathered and the rule runs once per chunk.",
        "by muon(lr = 0.1)  at commit",
    ),
    "commit": Word("`at commit`: gradients are gathered and the rule runs once per chunk.", "at commit"),
    "project": Word("What is applied to the state after the step.", "project rownorm"),
    "return": Word("The output of a definition.", "return linear(x)"),
    "repeat": Word(
        "Copies one after the other, each with its own parameters.", "repeat depth { x = x + f(x) }"
    ),
    "for": Word("Unrolled over a static list.", "for c, i in [16, 64] { x = f(x, c) }"),
    "in": Word("The static list a `for` runs over.", "for c in chunks { x = f(x, c) }"),
    "if": Word("A choice on static values.", "if depth > 1 { x = f(x) } else { x = g(x) }"),
    "else": Word("The other branch of an `if`.", "if depth > 1 { x = f(x) } else { x = g(x) }"),
    "solve": Word(
        "Read through a solve: `V[solve(K, q, ridge = r)]` is `V (K + r I)^-1 q` (Mesa); "
        "`g = solve(K, k, ridge = r)` is the solution itself.",
        "y = Hv[solve(Hk, q, ridge = 1e-2)]",
    ),
    "matrix": Word(
        "The map `W @ z`; starts at zero.  `out` and `in` override inferred sizes.",
        "memory S = matrix(out = 64)",
    ),
    "softmax": Word(
        "The non-parametric memory: `A[k] <- v` appends, `A[q]` attends.",
        "memory A = softmax(window = 512) per head",
    ),
    "like": Word("In a rule: a memory of the shape of a weight, zero at the start.", "memory m = like(W)"),
    "identity": Word("The identity matrix, where a matrix is expected.", "m[g] <- -identity  by gd(lr = lr)"),
    "true": Word("A static truth value.", "softmax(causal = true)"),
    "false": Word("A static truth value.", "softmax(causal = false)"),
    "and": Word("Both static conditions hold.", "if a > 1 and b > 1 { x = f(x) }"),
    "or": Word("One of the static conditions holds.", "if a > 1 or b > 1 { x = f(x) }"),
    "not": Word("The static condition does not hold.", "if not tied { x = f(x) }"),
    "W": Word("In a rule: the weight, as the distance from what retention decays to.", "W = W - lr * g"),
    "g": Word("In a rule: the gradient of the objective with respect to `W`.", "W = W - lr * g"),
    "x": Word("In a rule: the weight's own input.", "W = W - lr * outer(W @ x, x)"),
    "dy": Word("In a rule: the gradient at the weight's output.", "W = W - lr * outer(dy, x)"),
    "step": Word("In a rule: how often it was applied.", "W = W - lr / (1 + step) * g"),
    "matrices": Word("Role: weights of linear layers and of maps.", "matrices by muon(lr = 2e-2)"),
    "embeddings": Word("Role: weights of `embed`.", "embeddings by adamw(lr = 3e-4)"),
    "norms": Word("Role: weights of normalisations.", "norms by adamw(lr = 3e-4)"),
    "rest": Word("Role: every parameter that no other group claims.", "rest by adamw(lr = 3e-4)"),
    "next_token": Word("The task of language models: cross-entropy of the next token.", "task next_token"),
    "truncate": Word("In `train`: where back-propagation in time is cut.", "truncate 256 tokens"),
    "clip": Word("In `train`: the largest norm of the gradient.", "clip 1.0"),
}
"""Every word that has a meaning of its own somewhere."""

ALIASES = {"token": "tokens"}
"""Words that are another spelling of one that is explained."""

CLAUSES: dict[str, str] = {
    "minimize": "minimize ${1:l2}",
    "by": "by ${1:gd(lr = 0.1)}",
    "retain": "retain ${1:alpha}",
    "toward": "toward init",
    "over": "over ${1:16} tokens",
    "weighted": "weighted ${1:gamma}",
    "gradient": "gradient every ${1:16} tokens",
    "at": "at commit",
    "project": "project ${1:rownorm}",
}
"""What may stand behind a write, as snippets."""

ITEMS: dict[str, str] = {
    "block": "block ${1:name}(${2:x}) {\n  $0\n}",
    "model": "model ${1:name}(tokens, vocab = 256, dim = ${2:64}) {\n"
    "  x = embed(tokens, vocab, dim)\n  $0\n  return head(norm(x), vocab)\n}",
    "map": "map ${1:name}(z) {\n  $0\n}",
    "objective": "objective ${1:name}(pred, target) {\n  return ${0:0.5 * sum((pred - target) ** 2)}\n}",
    "rule": "rule ${1:name}(lr) {\n  W = W - lr * ${0:g}\n}",
    "train": "train ${1:model} {\n  task next_token\n  level pretraining every 1 step {\n"
    "    matrices  by muon(lr = 2e-2)\n    rest      by adamw(lr = 3e-4)\n  }\n}",
    "variant": "variant ${1:name} of ${2:model}(${0})",
    "use": 'use "${1:file.nl}"',
}
"""What may stand at the outermost level, as snippets."""

STATEMENTS: dict[str, str] = {
    "return": "return $0",
    "level": "level ${1:context} every ${2:1 token} { memory ${3:S} = ${0:matrix()} }",
    "memory": "memory ${1:S} = ${0:matrix()}",
    "write": "write ${1:S} {\n  [${2:k}] <- ${3:v}  by ${0:gd(lr = 0.1)}\n}",
    "repeat": "repeat ${1:depth} {\n  $0\n}",
    "for": "for ${1:c} in ${2:list} {\n  $0\n}",
    "if": "if ${1:condition} {\n  $0\n}",
}
"""What may stand in a body, as snippets."""
