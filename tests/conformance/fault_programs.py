"""Small programs that seeded faults are put into, one for every form of a memory."""

STEPS = """
block steps(x, heads = 2) {
  level slow every 3 tokens { memory S = matrix() per head init learned }
  level fast every 1 token  { memory F = matrix() per head init zero }
  k     = l2norm(split(linear(x), heads))
  q     = l2norm(split(linear(x), heads))
  v     = split(linear(x), heads)
  eta   = sigmoid(linear(x, heads))
  theta = sigmoid(linear(x, heads))
  a     = sigmoid(split(linear(x), heads))
  S[k] <- v  minimize l2  by momentum(lr = eta, beta = theta)  retain eta toward init  gradient every 2 tokens
  F *= a
  F[k] <- v  minimize huber  by gd(lr = eta)
  return linear(merge(S[q] + F[q]))
}
"""
"""Takes the sequential form: momentum on a base of its own, an objective that is not affine."""

HELD = """
block held(x, heads = 2) {
  level slow every 3 tokens { memory M, C = mlp(1) per head }
  level fast every 1 token  { memory F = matrix() per head init learned }
  k     = l2norm(split(linear(x), heads))
  q     = l2norm(split(linear(x), heads))
  v     = split(linear(x), heads)
  eta   = sigmoid(linear(x, heads))
  theta = sigmoid(linear(x, heads))
  M[k] <- v  minimize l2 over 2 tokens weighted theta
    by momentum(lr = eta, beta = theta)  retain eta toward init
  F[k] <- v  minimize l2  by dgd(lr = eta)  retain theta  gradient every 3 tokens
  C[k] <- v  minimize dot  by muon(lr = 0.1, beta = 0.5)  weighted eta  at commit
    retain theta  project rownorm
  return linear(merge(M[q] + F[q] + C[q]))
}
"""
"""Takes the chunk form: momentum over a window, reads of a running state, a rule at the commit."""

LIVE = """
block live(x, heads = 2) {
  level fast every 1 token { memory M, N = mlp(1) per head }
  k     = l2norm(split(linear(x), heads))
  q     = l2norm(split(linear(x), heads))
  eta   = sigmoid(linear(x, heads))
  theta = sigmoid(linear(x, heads))
  M[k] <- split(linear(x), heads)  minimize l2
    by normalised_momentum(lr = eta, beta = theta)  retain theta toward init  gradient every 3 tokens
  N[k] <- split(linear(x), heads)  minimize huber over 2 tokens weighted theta
    by gd(lr = eta)  retain theta  gradient every 3 tokens
  return linear(merge(M[q] + N[q]))
}
"""
"""Takes the pass over all chunks: reads of a running state, rates that look at inputs, windows."""

COMMIT = """
block commit(x, heads = 2) {
  level slow every 3 tokens { memory M, N = mlp(1) per head }
  k     = l2norm(split(linear(x), heads))
  q     = l2norm(split(linear(x), heads))
  eta   = sigmoid(linear(x, heads))
  theta = sigmoid(linear(x, heads))
  M[k] <- split(linear(x), heads)  minimize l2  weighted theta
    by momentum(lr = eta, beta = theta)  at commit  retain theta toward init
  N[k] <- split(linear(x), heads)  minimize l2 over 2 tokens
    by nesterov(lr = eta, beta = theta)  at commit  retain eta
  return linear(merge(M[q] + N[q]))
}
"""
"""Takes the pass over all chunks: rules that step once per chunk, on sums that wait in the state."""
