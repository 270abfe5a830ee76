"""Where many tensors lie, and how, asked in one call: a step asks a few hundred that are out of the cache.

Python asks one question of one tensor at a time (a tenth of a microsecond each, four times that out of the
cache).  DLPack's table of functions for C (`__dlpack_c_exchange_api__` of the class, version 1.3 of the
protocol) answers all of them at once.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from itertools import chain

from torch import Tensor

from nldsl.runtime.native import compiled

TEXT = """
#include <stdint.h>
/* What DLPack says of a tensor (DLTensor of dlpack.h). */
typedef struct {
  void *data;
  int32_t device, number, axes;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t offset;
} Tensor;
typedef int Look(void *object, Tensor *found);
enum { CPU = 1, FLOAT = 2 };
enum { STAY, NOTE, LEVEL, TICK, FETCH };

/* Whether numbers of so many bits lie one behind the other, in such a shape: `kind` has bits, axes, shape. */
static int alike(const Tensor *t, const int64_t *kind) {
  if (t->bits != kind[0] || t->axes != kind[1]) return 0;
  int64_t count = 1;
  int dense = t->device == CPU && t->code == FLOAT && t->lanes == 1;
  for (int32_t a = t->axes - 1; a >= 0; a--) {
    if (t->shape[a] != kind[2 + a]) return 0;
    dense &= t->shape[a] == 1 || t->strides[a] == count;
    count *= t->shape[a];
  }
  return dense || count == 0;
}

/* STAY: whether tensors are of such kinds and at such places.  NOTE: of such kinds; notes their places.
   LEVEL: whether the floats at such places are the same.  TICK: adds one to each of them.
   FETCH: begins to bring what is at such places into the cache; whatever is there, it is not touched. */
int step(int what, long count, Look *look, void **objects, void **places, const int64_t *kinds) {
  for (long i = 0; i < count; i++) {
    if (what == FETCH) {
      __builtin_prefetch(places[i]);
    } else if (what == TICK) {
      *(float *)places[i] += 1;
    } else if (what == LEVEL) {
      if (*(float *)places[i] != *(float *)places[0]) return 1;
    } else {
      Tensor found;
      if (look(objects[i], &found)) return -1;
      void *place = (char *)found.data + found.offset;
      if (!alike(&found, kinds) || (what == STAY && place != places[i])) return 1;
      kinds += 2 + kinds[1];
      places[i] = place;
    }
  }
  return 0;
}
"""
STAY = 0
NOTE = 1
LEVEL = 2
TICK = 3
FETCH = 4
TABLE = "__dlpack_c_exchange_api__", b"dlpack_exchange_api"
"""What a class of tensors calls the table, and what the table is called."""
VERSION = (1, 3)
"""The first version of the protocol with this table; another first number means another table."""
LOOK = 5
"""Where the table has what looks at a tensor: behind a version, an older table and three functions."""
LINE = 64
"""Bytes that come into the cache at once."""
LINES = 3
"""How many of them torch's own object of a tensor takes."""
Ask = Callable[[int, int, int, int, int, int], int]


@cache
def asking() -> tuple[Ask, int] | None:
    """`step` of the text, under the lock of Python, and torch's function that looks at a tensor.

    Nothing where there is no compiler, or a torch of another version of the protocol.
    """
    capsule = getattr(Tensor, TABLE[0], None)
    loop = compiled(TEXT, "float")
    if capsule is None or loop is None:
        return None
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    try:
        table = pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, TABLE[1])
    except ValueError:  # of another name
        return None
    major, minor = (ctypes.c_uint32 * 2).from_address(table)
    look = (ctypes.c_void_p * (LOOK + 1)).from_address(table)[LOOK]
    if major != VERSION[0] or minor < VERSION[1] or look is None:
        return None
    kind = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_long, *[ctypes.c_void_p] * 4)
    address = ctypes.cast(loop, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    return kind(address), look


class Where:
    """Tensors of `float` and `double` and where they lie; what cannot be asked is not where it was.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 3)
        >>> where = Where([x])
        >>> list(where.places) == [x.data_ptr()]
        True
        >>> x.data = x.data.t()
        >>> where.stay()
        False
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)
        self.objects = array("Q", map(id, self.tensors))
        self.places = array("Q", map(Tensor.data_ptr, self.tensors))
        self.kinds = array("q", chain.from_iterable(map(_kind, self.tensors)))
        self.ask: Ask | None
        self.ask, look = asking() or (None, 0)
        arrays = (self.objects, self.places, self.kinds)
        self.given = (len(self.tensors), look, *(one.buffer_info()[0] for one in arrays))

    @cached_property
    def lines(self) -> array[int]:
        """Lines of the cache that tensors are made of."""
        return array("Q", chain.from_iterable(map(lines, self.tensors)))

    def fetch(self) -> None:
        """Bring what tensors are made of into the cache, all at once: one leads to the other."""
        if self.ask is not None:
            self.ask(FETCH, len(self.lines), 0, 0, self.lines.buffer_info()[0], 0)

    def stay(self) -> bool:
        """Whether all are where they were, dense as they were."""
        return self._asked(STAY)

    def note(self, tensors: Sequence[Tensor]) -> bool:
        """Whether these are dense tensors of the same shapes and types; where they are is noted.

        The table says nothing of a sign that is still to be turned, and of another class what it computes.
        """
        if not {Tensor}.issuperset(map(type, tensors)) or any(map(Tensor.is_neg, tensors)):
            return False
        self.objects[:] = array("Q", map(id, tensors))
        return self._asked(NOTE)

    def level(self) -> bool:
        """Whether floats are the same."""
        return self._asked(LEVEL)

    def tick(self) -> None:
        """Add one to each of the floats."""
        self._asked(TICK)

    def _asked(self, what: int) -> bool:
        try:
            return self.ask is not None and self.ask(what, *self.given) == 0
        except RuntimeError:  # a tensor without a place: sparse, or elsewhere
            return False


def _kind(tensor: Tensor) -> Iterator[int]:
    yield 8 * tensor.element_size()
    yield tensor.ndim
    yield from tensor.shape


def plain(tensor: Tensor) -> bool:
    """Whether what lies in its memory are its numbers.

    Classes that answer for themselves (`__torch_dispatch__`) have them elsewhere, and of a tensor that torch
    has only marked as negative they have the other sign.

    >>> import torch
    >>> plain(torch.ones(1)), plain(torch.tensor([1j]).conj().imag)
    (True, False)
    """
    return not answers(tensor) and not tensor.is_neg()


def answers(tensor: Tensor) -> bool:
    """Whether its class answers for itself what is asked of a tensor."""
    own: object = type(tensor).__torch_dispatch__
    return own is not Tensor.__torch_dispatch__


def lines(tensor: Tensor) -> Iterator[int]:
    """Where lines of the cache begin that hold a tensor of Python, that of torch, and its storage."""
    inner = int(tensor._cdata)
    yield id(tensor)
    yield from range(inner, inner + LINES * LINE, LINE)
    yield int(tensor.untyped_storage()._cdata)
    if tensor.numel() == 1:
        yield tensor.data_ptr()
