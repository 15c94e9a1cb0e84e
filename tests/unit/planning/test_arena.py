"""Placed buffers that are needed at the same time never share a byte, and the arena is tight."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from harness.device import ALIGNMENT, aligned
from harness.planning.arena import Block, live_bytes, place


@st.composite
def blocks(draw):
    first = draw(st.integers(0, 20))
    return Block(draw(st.integers(0, 5000)), first, draw(st.integers(first, 25)))


LISTS = st.lists(blocks(), max_size=25)


@given(LISTS)
def test_blocks_that_meet_in_time_are_apart_in_memory(found):
    place(found)
    for a, b in combinations(found, 2):
        in_time = a.first <= b.last and b.first <= a.last
        apart = a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset
        assert not in_time or apart


@given(LISTS)
def test_every_block_is_aligned_and_inside_the_arena(found):
    total = place(found)
    for block in found:
        assert block.offset >= 0 and block.offset % ALIGNMENT == 0
        assert block.offset + block.nbytes <= total


@given(LISTS)
def test_the_arena_is_between_the_live_maximum_and_the_sum(found):
    total = place(found)
    live = max(
        (sum(aligned(b.nbytes) for b in found if b.first <= t <= b.last) for t in range(26)),
        default=0,
    )
    assert live_bytes(found) == live
    assert live <= total <= sum(aligned(block.nbytes) for block in found)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_blocks_one_after_another_take_the_room_of_the_largest(sizes):
    found = [Block(nbytes, t, t) for t, nbytes in enumerate(sizes)]
    assert place(found) == aligned(max(sizes))


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_nested_lifetimes_fit_without_a_gap(sizes):
    """A forward and its backward: first made, last used."""
    found = [Block(nbytes, t, 100 - t) for t, nbytes in enumerate(sizes)]
    assert place(found) == sum(aligned(nbytes) for nbytes in sizes)


def test_larger_blocks_are_placed_first():
    """Small ones first would leave a gap below the long-lived block, and take 1,024 bytes."""
    found = [Block(256, 0, 0), Block(384, 2, 3), Block(384, 0, 2)]
    assert place(found) == 768


@given(LISTS)
def test_placing_is_deterministic(found):
    again = [Block(b.nbytes, b.first, b.last) for b in found]
    assert place(found) == place(again)
    assert [b.offset for b in found] == [b.offset for b in again]


@given(st.integers(0, 10**6))
def test_aligned_rounds_up_to_the_next_multiple(nbytes):
    assert aligned(nbytes) % ALIGNMENT == 0
    assert nbytes <= aligned(nbytes) < nbytes + ALIGNMENT
