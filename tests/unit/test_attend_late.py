"""Few queries against a cache of constants: torch's kernel and one query at a time are the judges."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from nldsl.runtime import attend_late as module
from nldsl.runtime.attention import attention
from nldsl.runtime.growth import Room
from nldsl.runtime.native import compiler

B, H, K, V = 3, 2, 6, 5
SCALE = 0.4


def drawn(*shape, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def inputs(tokens, cached, heads=H, grad_cache=False):
    q, k = drawn(B, tokens, heads, K, seed=1, grad=True), drawn(B, tokens, H, K, seed=2, grad=True)
    v = drawn(B, tokens, H, V, seed=3, grad=True)
    keys, values = drawn(B, cached, H, K, seed=4, grad=grad_cache), drawn(B, cached, H, V, seed=5)
    return q, k, v, {"keys": keys, "values": values, "valid": None}


def expected(q, k, v, cache):
    """Query by query, with everything up to its own pair."""
    rows = []
    keys, values = torch.cat([cache["keys"], k], 1), torch.cat([cache["values"], v], 1)
    for t in range(q.shape[1]):
        end = cache["keys"].shape[1] + t + 1
        weights = torch.softmax(SCALE * torch.einsum("bhk,bshk->bhs", q[:, t], keys[:, :end]), -1)
        rows.append(torch.einsum("bhs,bshv->bhv", weights, values[:, :end]))
    return torch.stack(rows, 1)


@pytest.fixture(autouse=True, params=["in C", "by torch"])
def where(request, monkeypatch):
    """Everything once in C, if there is a compiler, and once without."""
    if request.param == "by torch":
        monkeypatch.setattr(module, "loop", lambda like: None)
    elif not compiler():
        pytest.skip("no C compiler")
    return request.param


@pytest.fixture
def calls(monkeypatch):
    seen = []

    def watched(*args):
        seen.append(args)
        return module.attend_late(*args)

    monkeypatch.setattr("nldsl.runtime.attention.attend_late", watched)
    return seen


@pytest.mark.parametrize("kept", [0, module.KEPT])
@pytest.mark.parametrize(("tokens", "cached"), [(16, 1), (17, 40), (64, 100), (256, 3)])
def test_equals_one_query_at_a_time_in_values_and_gradients(tokens, cached, kept, calls, monkeypatch):
    monkeypatch.setattr(module, "KEPT", kept)
    q, k, v, cache = inputs(tokens, cached)
    weight = drawn(B, tokens, H, V, seed=6)
    y, new = attention(q, k, v, cache, scale=SCALE)
    assert len(calls) == 1
    assert torch.equal(new["keys"], torch.cat([cache["keys"], k], 1))
    found = torch.autograd.grad((y * weight).sum(), (q, k, v))
    want = expected(q, k, v, cache)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        found, torch.autograd.grad((want * weight).sum(), (q, k, v)), rtol=1e-11, atol=1e-11
    )


def test_equals_the_kernel_of_torch_in_single_precision(calls):
    q, k, v, cache = inputs(32, 70)
    single = {name: None if x is None else x.float() for name, x in cache.items()}
    y, new = attention(q.float(), k.float(), v.float(), single, scale=SCALE)
    seen = torch.ones(32, 102, dtype=torch.bool).tril(70)
    turned = (x.float().transpose(1, 2) for x in (q, new["keys"], new["values"]))
    want = F.scaled_dot_product_attention(*turned, attn_mask=seen, scale=SCALE).transpose(1, 2)
    assert len(calls) == 1
    torch.testing.assert_close(y, want, rtol=1e-5, atol=1e-6)


def test_a_graph_that_stays_gives_the_same_gradients_again():
    q, k, v, cache = inputs(16, 20)
    y, _ = attention(q, k, v, cache, scale=SCALE)
    first = torch.autograd.grad(y.sum(), (q, k, v), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), (q, k, v)), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    "why", ["one token", "a cache with a history", "shared heads", "autocast", "a window"]
)
def test_everything_else_goes_the_general_way_and_is_right(why, calls):
    tokens = 1 if why == "one token" else 20
    q, k, v, cache = inputs(
        tokens, 30, heads=2 * H if why == "shared heads" else H, grad_cache=why == "a cache with a history"
    )
    if why == "autocast":
        from nldsl.runtime.precision import islands

        with torch.autocast("cpu", torch.bfloat16), islands(torch.device("cpu")):
            y, _ = attention(*(x.float() for x in (q, k, v)), cache, scale=SCALE)
        assert not calls
        torch.testing.assert_close(y.double(), expected(q, k, v, cache), rtol=0.1, atol=0.1)
        return
    y, _ = attention(q, k, v, cache, scale=SCALE, window=10 if why == "a window" else None)
    assert not calls
    if why == "a cache with a history":
        (g,) = torch.autograd.grad(y.sum(), cache["keys"], retain_graph=True)
        (want,) = torch.autograd.grad(expected(q, k, v, cache).sum(), cache["keys"])
        torch.testing.assert_close(g, want, rtol=1e-11, atol=1e-11)
    if why in ("one token", "a cache with a history"):
        torch.testing.assert_close(y, expected(q, k, v, cache), rtol=1e-12, atol=1e-12)


def test_a_derivative_of_its_gradients_is_refused():
    q, k, v, cache = inputs(16, 4)
    y, _ = attention(q, k, v, cache, scale=SCALE)
    (g,) = torch.autograd.grad(y.sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="NL0977"):
        g.sum().backward()


@pytest.mark.parametrize(("tokens", "cached"), [(16, 1), (17, 40), (64, 100), (256, 3)])
def test_a_cache_with_a_history_gets_its_gradients(tokens, cached, where, monkeypatch):
    """In C where there is a compiler; batches of none and of threads, rooms behind a cache, keys alone."""
    seen = []
    watched = lambda *args: seen.append(args) or module.attend_grown(*args)  # noqa: E731
    monkeypatch.setattr("nldsl.runtime.attention.attend_grown", watched)
    q, k, v, cache = inputs(tokens, cached, grad_cache=True)
    weight = drawn(B, tokens, H, V, seed=6)
    asked = q, k, v, cache["keys"]
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with Room(tokens).piece(tokens):
            y, _ = attention(q, k, v, cache, scale=SCALE)
        found = torch.autograd.grad((y * weight).sum(), asked)
        want = expected(q, k, v, cache)
        torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            found, torch.autograd.grad((want * weight).sum(), asked), rtol=1e-11, atol=1e-11
        )
    torch.set_num_threads(before)
    assert len(seen) == (2 if where == "in C" else 0)
    nobody = {name: None if x is None else x[:0] for name, x in cache.items()}
    assert attention(q[:0], k[:0], v[:0], nobody, scale=SCALE)[0].shape == (0, tokens, H, V)


def test_large_scores_and_numbers_that_are_none():
    """Softmax far from one, and what is not a number stays with its own sample."""
    q, k, v, cache = inputs(20, 90)
    q.data.mul_(300.0)
    torch.testing.assert_close(
        attention(q, k, v, cache, scale=SCALE)[0], expected(q, k, v, cache), rtol=1e-9, atol=1e-9
    )
    q.data[1, 3] = float("nan")
    y, _ = attention(q, k, v, cache, scale=SCALE)
    assert bool(y[1, 3].isnan().all()) and int(y.isnan().sum()) == y[1, 3].numel()


def test_no_token_changes_an_earlier_one_in_the_last_bit():
    q, k, v, cache = inputs(64, 90)
    y, _ = attention(q, k, v, cache, scale=SCALE)
    k.data[:, 40] += 1.0
    v.data[:, 40] += 1.0
    other, _ = attention(q, k, v, cache, scale=SCALE)
    assert torch.equal(y[:, :40], other[:, :40]) and not torch.equal(y[:, 40], other[:, 40])


def test_transforms_and_modes_that_look_on_go_the_general_way():
    """Under `torch.func`, and under what counts or writes down operations, torch computes."""
    q, k, v, cache = inputs(16, 20, grad_cache=True)

    def total(keys):
        return attention(q.detach(), k.detach(), v.detach(), {**cache, "keys": keys}, scale=SCALE)[0].sum()

    found = torch.func.grad(total)(cache["keys"].detach())
    (want,) = torch.autograd.grad(total(cache["keys"]), cache["keys"])
    torch.testing.assert_close(found, want, rtol=1e-11, atol=1e-11)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        attention(q, k, v, cache, scale=SCALE)
    assert counted.get_total_flops() > 0


def test_keys_that_weigh_nothing_at_first():
    """A whole block of scores below every number, and then one that counts."""
    q = torch.full((1, 16, 1, 1), 1e200, dtype=torch.float64)
    keys, values = torch.ones(1, 100, 1, 1, dtype=torch.float64), drawn(1, 100, 1, V)
    keys[:, :70] = -1e200
    cache = {"keys": keys[:, :84], "values": values[:, :84], "valid": None}
    y, _ = attention(q, keys[:, 84:], values[:, 84:], cache, scale=1.0)
    torch.testing.assert_close(y[0, 0, 0], values[0, 70:85, 0].mean(0))


def test_it_is_left_to_others_where_operations_are_changed():
    q, k, v, cache = inputs(16, 5)

    def read(row):
        return attention(row[None], k[:1], v[:1], {**cache, **first(cache)}, scale=SCALE)[0][0]

    several = torch.func.vmap(read)(q)
    torch.testing.assert_close(several, torch.stack([read(row) for row in q]))


def first(cache):
    return {name: cache[name][:1] for name in ("keys", "values")}
