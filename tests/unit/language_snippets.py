# ruff: noqa: E501
"""The programs shown in the description of the language, for tests of every stage that reads text."""

from __future__ import annotations

GATED_DELTANET = """\
# Gated DeltaNet (Yang et al. 2025)
block gated_deltanet(x, heads = 4, window = 4) {
  level context every 1 token { memory S = matrix() per head init zero }

  q     = l2norm(split(silu(conv(linear(x), window)), heads))
  k     = l2norm(split(silu(conv(linear(x), window)), heads))
  v     = silu(conv(linear(x), window))
  beta  = sigmoid(linear(x, heads))
  alpha = exp(-softplus(linear(x, heads)))

  S    *= alpha                                  # retention
  S[k] <- v  minimize l2  by gd(lr = beta)       # one delta-rule step per token
  return linear(merge(norm(S[q])) * silu(linear(x)))
}
"""

WRITES = """\
block writes(x) {
  M[k] <- v   minimize huber(delta = 1)  by momentum(lr = theta, beta = eta)   retain alpha
  M[k] <- M[v]                           by dgd(lr = eta, rate = "raw")       retain alpha toward init
  M[k] <- v   minimize dot               by gd(lr = 1)                                    # Hebbian
  M[k] <- v   minimize l2                by gd(lr = eta)   gradient every 16 tokens        # mini-batch TTT
  M[k] <- v   minimize l2 over 16 tokens weighted gamma   by gd(lr = eta)                 # Omega rule
  M[k] <- v   minimize dot  by muon(lr = 0.1)  weighted eta  at commit  project rownorm    # LaCT: one matrix step
  write S { [kappa] <- 0 minimize l2 by gd(lr = a);  [k] <- v minimize dot by gd(lr = 1) } # RWKV-7: two terms
  write each of Mk, Mv, Me, Ma, M { [k] <- self[v]  by dgd(lr = eta, rate = "raw")  retain alpha toward init }
  y = Hv[solve(Hk, q, ridge = lam)]                                                       # Mesa
}
"""

PARTS = """\
objective huber(pred, target, delta = 1) {
  e = pred - target
  return sum(where(abs(e) < delta, 0.5 * e ** 2, delta * (abs(e) - 0.5 * delta)))
}
map residual_mlp(z, expand = 1) {                       # Eq. 89
  W2 = weight(expand * dim(z), dim(z))
  W1 = weight(dim(z), expand * dim(z))
  return z + W1 @ silu(W2 @ z)
}
"""

HOPE = """\
# Hope: self-modifying Titans followed by a continuum memory system (Sec. 8, Eq. 92, 94-97)
block self_modifying_titans(x, heads, chunk = 16, memory_chunk = 64) {
  level projections every chunk tokens        { memory Mk, Mv, Me, Ma = residual_mlp() per head }
  level recall      every memory_chunk tokens { memory M              = residual_mlp() per head }

  u     = norm(silu(conv(x, 4)) + x)
  q     = l2norm(split(linear(u), heads))
  k     = l2norm(Mk[u])
  v     = l2norm(Mv[u])
  eta   = 2 * sigmoid(readout(Me[u]))                         # readout: learned scalar per head
  alpha = sigmoid(readout(Ma[u]))
  y     = M[q]                                                # Eq. 94: the read stands above the write
  write each of Mk, Mv, Me, Ma, M {
    [k] <- l2norm(self[v])  minimize dot  by dgd(lr = eta, rate = "normalised")  retain alpha toward init   # Eq. 92
  }
  return linear(merge(norm(y)))
}

block cms(x, chunks = [16, 64, 256], expand = 4) {            # Eq. 70-71, a chain
  for c, i in chunks {
    level f every c tokens { memory F = mlp(expand) }
    F minimizes task  by gd(lr = 1e-3)
    x = x + F[norm(x)]
  }
  return x
}

model hope(tokens, vocab = 256, dim = 256, depth = 4, heads = 4, mixer = self_modifying_titans, chunks = [16, 64]) {
  x = embed(tokens, vocab, dim)
  repeat depth {
    x = x + mixer(norm(x), heads)
    x = cms(x, chunks)
  }
  return head(norm(x), vocab)
}

train hope {
  task next_token
  level pretraining every 1 step {
    matrices                        by muon(lr = 2e-2)
    embeddings, head, norms, rest   by adamw(lr = 3e-4)
  }
}
variant hope_attention of hope(mixer = attention)
"""

RULES = """\
rule momentum(lr, beta = 0.9) {                                   # Eq. 33
  memory m = like(W)
  m = beta * m - lr * g
  W = W + m
}
rule adamw(lr, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0.01) {
  memory m, s = like(W)
  m = beta1 * m + (1 - beta1) * g
  s = beta2 * s + (1 - beta2) * g ** 2
  W = (1 - lr * decay) * W - lr * unbias(m, beta1) / (sqrt(unbias(s, beta2)) + eps)
}
rule m3(lr, beta1 = 0.95, beta2 = 0.95, beta3 = 0.95, alpha = 0.5, eps = 1e-8, slow = 10, iterations = 5) {  # Alg. 1
  level fast every 1 step     { memory m1, s = like(W) }
  level long every slow steps { memory m2 = like(W) }             # gathers `slow` gradients, then becomes visible
  m1 += beta1 * g
  s  += beta2 * g ** 2
  m2 += beta3 * g
  W = W - lr * (orthogonalize(m1, iterations) + alpha * orthogonalize(m2, iterations)) / (sqrt(s) + eps)
}
rule delta_momentum(lr, beta = 0.9) {                             # Eq. 48-49, reading P14
  memory m = matrix(like = W)
  m[g] <- -identity  minimize l2  by gd(lr = lr)  retain beta
  W = W + m
}
rule deep_momentum(lr, beta = 0.9, expand = 1) {                  # Eq. 50
  memory m = residual_mlp(expand)
  m[g] <- 1  minimize dot  by gd(lr = lr)  retain beta
  W = W + m[g]
}
rule dgd(lr, rate = "proximal") { W[x] <- -dy  minimize l2  by proximal(lr, rate = rate) }     # Eq. 56-57
rule slow(lr) { every 10 steps { W = W - lr * g } }
"""

TRAIN = """\
nldsl 1
use "layers.nl"
train hope {
  task next_token(carry = "exact")
  learn_generated = true
  level pretraining every 1 step {
    matrices, "blocks[*].conv.*" by muon(lr = cosine(2e-2, warmup = 100))
    embeddings, head, norms, rest by lookahead(adamw(lr = 3e-4)) every 10 steps
  }
  truncate 256 tokens
  clip 1.0
}
variant big of hope(dim = 512, depth = 12, heads = 8) {
  level "cms.f[1]" every 1024 tokens
  matrices by muon(lr = 0.02)
}
"""

MEMORIES = """\
block memories(x, n = 4) {
  memory A = softmax(window = 64, start = n) per head init learned("first") reset never
  level a every 1 token {
    memory B = matrix(out = 8) per head(2) init zero reset every sequence
    memory C = mlp() init B reset every 128 tokens
  }
  level z never { memory D = residual_mlp() }
  A[x] <- x
  C[x] <- x
    # the clause below continues the write
    by gd(lr = 0.1)
    retain (1 - n) toward init
  if n > 2 and not n == 4 { y = A[x] } else if n <= 1 or n != 3 { y = B[x] } else { y = x }
  by = 3
  over = by // 2 - -x ** 2
  a, b = parts(
    y,      # cut
    by,
    over,
  )
  return a, b
}
"""

TEXTS = {
    "gated_deltanet": GATED_DELTANET,
    "writes": WRITES,
    "parts": PARTS,
    "hope": HOPE,
    "rules": RULES,
    "train": TRAIN,
    "memories": MEMORIES,
}

YAML_BLOCK = """\
nldsl: 1
block gated_deltanet:
  takes: [x, "heads = 4", "window = 4"]
  levels:
    context: {every: 1 token, memories: {S: "matrix() per head init zero"}}
  body:
    - beta = sigmoid(linear(x, heads))
    - S *= alpha
    - write: S
      key: k
      value: v
      minimize: l2
      by: gd(lr = beta)
    - return linear(merge(norm(S[q])) * silu(linear(x)))
"""

YAML_BLOCK_TWIN = """\
block gated_deltanet(x, heads = 4, window = 4) {
  level context every 1 token { memory S = matrix() per head init zero }
  beta = sigmoid(linear(x, heads))
  S *= alpha
  S[k] <- v minimize l2 by gd(lr = beta)
  return linear(merge(norm(S[q])) * silu(linear(x)))
}
"""

YAML_VARIANT = """\
nldsl: 1
variant big of hope:
  with: {dim: 512, depth: 12, heads: 8}
  levels: {"cms.f[1]": every 1024 tokens}
  train: {matrices: muon(lr = 0.02)}
"""

YAML_VARIANT_TWIN = """\
variant big of hope(dim = 512, depth = 12, heads = 8) {
  level "cms.f[1]" every 1024 tokens
  matrices by muon(lr = 0.02)
}
"""
