"""Memories of large weights lie together, and behave like tensors of their own."""

import copy
import io

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import nldsl
from nldsl.runtime import rule_optimizer
from nldsl.runtime.rule_room import HUGE, LEAST, PAGE, Room, apart

SHAPES = [(512, 512), (5,), (1024, 512), (300, 301), (33, 1024)]
RULE = "adamw(lr = 1e-2)"


class NoRoom(Room):
    """Everything where it was made."""

    def put(self, value, weight, apart):
        return value


def weights():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def steps(optimizer, params, first, last):
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def small(state):
    """Whether a tensor's storage holds the tensor and nothing else."""
    return state.untyped_storage().nbytes() == state.nbytes


@pytest.mark.parametrize("form", ["auto", "eager"])
def test_steps_are_those_without_a_room(form, monkeypatch):
    params, others = weights(), weights()
    optimizer = nldsl.optimizer(RULE, params, form=form)
    monkeypatch.setattr(rule_optimizer, "Room", NoRoom)
    other = nldsl.optimizer(RULE, others, form=form)
    steps(optimizer, params, 0, 4)
    steps(other, others, 0, 4)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(m, other.state[q][name]) for name, m in optimizer.state[p].items())


def test_large_memories_are_apart_from_their_weights_and_overlap_nothing():
    params = weights()
    optimizer = nldsl.optimizer(RULE, params)
    spans = []
    for p in params:
        names = [name for name in optimizer.state[p] if name != "step"]
        for index, name in enumerate(names):
            memory = optimizer.state[p][name]
            assert small(memory) and memory.is_contiguous() and memory.shape == p.shape
            assert not memory.any()
            spans.append((memory.data_ptr(), memory.data_ptr() + memory.nbytes))
            if memory.nbytes >= LEAST:
                place = p.data_ptr() // 64 * 64
                assert (memory.data_ptr() - place) % PAGE == apart(index, len(names))
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("how", ["deepcopy", "torch.save", "safetensors"])
def test_a_state_is_saved_and_loaded_again(how, tmp_path):
    params, others = weights(), weights()
    optimizer, other = nldsl.optimizer(RULE, params), nldsl.optimizer(RULE, others)
    steps(optimizer, params, 0, 2)
    saved = optimizer.state_dict()
    if how == "deepcopy":
        saved = copy.deepcopy(saved)
    elif how == "torch.save":
        file = io.BytesIO()
        torch.save(saved, file)
        assert len(file.getvalue()) < 2.1 * sum(p.nbytes for p in params)
        file.seek(0)
        saved = torch.load(file)
    else:
        tensors = {f"{i}.{n}": x for i, s in saved["state"].items() for n, x in s.items()}
        save_file(tensors, tmp_path / "state")
        loaded = load_file(tmp_path / "state")
        saved["state"] = {i: {n: loaded[f"{i}.{n}"] for n in s} for i, s in saved["state"].items()}
    other.load_state_dict(saved)
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    steps(optimizer, params, 2, 4)
    steps(other, others, 2, 4)
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        assert all(x.data_ptr() != other.state[q][n].data_ptr() for n, x in optimizer.state[p].items())


def test_a_loaded_state_lies_in_a_room_again_and_leaves_the_old_one_alone():
    params = weights()
    optimizer = nldsl.optimizer(RULE, params)
    steps(optimizer, params, 0, 1)
    before = optimizer.state_dict()["state"][0]["m"]
    value = before.clone()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, params, 1, 2)
    assert torch.equal(before, value)
    memory, p = optimizer.state[params[0]]["m"], params[0]
    assert (memory.data_ptr() - p.data_ptr() // 64 * 64) % PAGE == apart(0, 2)


def test_what_is_small_or_of_another_layout_stays_where_it_is():
    room = Room([HUGE] * 3)
    large, turned, little = torch.ones(1024, 512), torch.ones(1024, 512).T, torch.ones(7)
    assert room.put(turned, large, 64) is turned
    assert room.put(little, large, 64) is little
    moved = room.put(large, large, 64)
    assert moved is not large and torch.equal(moved, large)
    assert Room([LEAST]).put(large, large, 64) is large


def test_a_room_is_full_when_what_it_was_made_for_is_in():
    room = Room([HUGE] * 2)
    value = torch.ones(HUGE // 4)
    found = [room.put(value, value, 64 * i) for i in range(4)]
    assert [x is value for x in found] == [False, False, True, True]
