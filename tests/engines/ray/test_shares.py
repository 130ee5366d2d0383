"""What each replica is given of what there is to ask."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from harness.engines.ray.backlog import Backlog
from harness.types import Generation, Prompt, Request

FREE = st.lists(st.integers(0, 600), max_size=40)


def request(number: int) -> Request:
    return Request(str(number), Prompt(""), Generation(max_tokens=1))


@given(FREE, st.integers(0, 700))
@example([10, 10, 4], 9)
@example([4] * 40, 300)  # more than the roomiest have room for
@example([512] * 40, 700)
@example([], 5)
@example([0, 0], 5)
def test_shares_go_where_most_is_free(free: list[int], count: int) -> None:
    backlog = Backlog(map(request, range(count)), clock=lambda: 0.0)
    shares = backlog.shares(free)
    sizes = [len(share) for share in shares]
    chosen = sorted(free, reverse=True)[:16]
    assert sum(sizes) == min(count, sum(chosen), 256)
    assert all(0 <= size <= room for size, room in zip(sizes, free, strict=True))
    assert sum(size > 0 for size in sizes) <= 16  # of many replicas each is sent some at a time
    left = [room - size for room, size in zip(free, sizes, strict=True)]
    given_to = [place for place, size in enumerate(sizes) if size]
    if len(free) <= 16:  # nobody has less to do than one that was given something, by more than one
        assert all(left[place] >= max(left) - 1 for place in given_to)
    ids = [int(each.request.id) for share in shares for each in share]
    assert sorted(ids) == list(range(sum(sizes)))


def test_all_get_about_the_same_in_the_end() -> None:
    for replicas in (2, 7, 40):
        backlog, free = Backlog(map(request, range(1319)), clock=lambda: 0.0), [1024] * replicas
        while backlog.more:
            free = [room - len(share) for room, share in zip(free, backlog.shares(free), strict=True)]
        assert sum(free) == 1024 * replicas - 1319
        assert max(free) - min(free) <= (1 if replicas <= 16 else 16)
