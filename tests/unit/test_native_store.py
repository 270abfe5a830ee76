"""Memory of arrays of native mode that the next step fills again."""

import gc
import mmap
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.native import linears, turn_on
from nldsl.native import store as stores
from nldsl.native.store import LARGE, LEAST, STORE, Store
from nldsl.runtime import row_loops
from nldsl.runtime.arrays import ARRAYS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere torch has the memory")
NUMBERS = LARGE // 4


def test_memory_in_use_is_nobody_elses() -> None:
    store = Store()
    first = store.empty((NUMBERS,), torch.float32).fill_(1.0)
    second = store.empty((NUMBERS,), torch.float32).fill_(2.0)
    assert first.unique().tolist() == [1.0]
    view = first.view(2, -1)[1]
    del first
    third = store.empty((NUMBERS,), torch.float32).fill_(3.0)
    assert view.unique().tolist() == [1.0]
    assert (second.unique().item(), third.unique().item()) == (2.0, 3.0)


def test_memory_that_is_free_is_used_again_for_another_type() -> None:
    store = Store()
    place = store.empty((NUMBERS,), torch.float32).data_ptr()
    assert store.empty((NUMBERS // 2,), torch.float64).data_ptr() == place


def test_never_more_than_was_in_use_at_once() -> None:
    store = Store()
    for count in (1, 2, 3, 5):
        store.empty((count * NUMBERS,), torch.float32)
    store.clear()
    assert (store.used, store.free) == (0, [])
    both = [store.empty((count * NUMBERS,), torch.float32) for count in (1, 2)]
    both.clear()
    third = store.empty((3 * NUMBERS,), torch.float32)
    # The two that are free would make it six.
    assert store.used == store.most == third.nbytes
    assert store.free == []


def test_small_arrays_are_torchs() -> None:
    store = Store()
    x = store.empty((LEAST // 4 - 1,), torch.float32)
    assert x.shape == (LEAST // 4 - 1,)
    assert store.used == 0


def test_threads_have_places_of_their_own() -> None:
    store, wrong = Store(), []

    def work(number: int) -> None:
        for _ in range(50):
            x = store.empty((NUMBERS,), torch.float32).fill_(number)
            if not bool((x == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


FORK = """
import os, torch
from nldsl.native.store import Store
x = Store().empty((2**19,), torch.float32).zero_()
child = os.fork()
if not child:
    x[0] = 1.0
    os._exit(0)
os.waitpid(child, 0)
print(x[0].item())
"""


def test_a_fork_does_not_write_into_its_parents_arrays() -> None:
    made = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["0.0"]


def test_off_gives_the_memory_back() -> None:
    model = nldsl.compile("titans_mlp", block="titans_mlp", dim=8, heads=2, chunk=4)
    nldsl.native(model)
    STORE.empty((NUMBERS,), torch.float32)
    gc.collect()
    nldsl.native(model, off=True)
    assert STORE.free == []


def flags_of(place: int) -> str:
    """What the system has been told of the memory at an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            here = int(bounds[1], 16) <= place < int(bounds[2], 16)
        elif here and line.startswith("VmFlags:"):
            return line
    return ""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has no large pages"
)
def test_arrays_ask_for_large_pages() -> None:
    assert " hg" in flags_of(Store().empty((NUMBERS,), torch.float32).data_ptr())
    # Not an array of torch: that may lie where another had asked for them.
    plain = mmap.mmap(-1, 4 * NUMBERS)
    assert " hg" not in flags_of(torch.frombuffer(plain, dtype=torch.float32).data_ptr())


DIRECT = """
block b(x) {
  level c every 1 token { memory M = matrix() }
  M[l2norm(linear(x))] <- linear(x)  minimize l2  by gd(lr = 0.5)  retain 0.9
  return M[linear(x)]
}
"""


@pytest.mark.parametrize("text", [DIRECT, "block b(x) { return norm(x) }", "block b(x) { return linear(x) }"])
def test_what_a_model_in_lanes_returns_may_be_changed_in_place(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are divided by a temperature, and scores set to minus infinity."""
    monkeypatch.setattr(stores, "LEAST", 1)
    monkeypatch.setattr(turn_on, "LEAST", 1)
    monkeypatch.setattr(row_loops, "LEAST", 1)
    monkeypatch.setattr(linears, "faster", lambda step: True)
    linears.products.cache_clear()
    layer = nldsl.compile(text, x=8)
    nldsl.native(layer, at_once=True)
    x = torch.randn(2, 16, 8, requires_grad=True)
    found = []
    with linears.every_product():
        # The second call goes the way of all that follow.
        for change in (torch.mul, torch.mul, Tensor.mul_):
            y, _ = layer(x)
            found.append(torch.autograd.grad(change(y, 3.0).sum(), x)[0])
    linears.products.cache_clear()
    assert torch.equal(found[1], found[2])


def test_rows_come_from_the_store_while_a_model_is_in_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_on, "IN_LANES", type(turn_on.IN_LANES)())
    monkeypatch.setattr(ARRAYS, "empty", None)
    one, other = (nldsl.compile("gla", block="gla", dim=8, heads=2) for _ in range(2))
    nldsl.native(one)
    nldsl.native(other)
    nldsl.native(one, off=True)
    assert ARRAYS.empty == STORE.empty
    nldsl.native(other, off=True)
    assert ARRAYS.empty is None
