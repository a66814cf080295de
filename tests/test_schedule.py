from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetscope.base.errors import InvalidArgument
from unetscope.table.schedule import is_marked, marked_epochs


@given(st.integers(0, 3000))
def test_the_last_epoch_is_always_marked(last: int) -> None:
    for schedule in ("log", "paper", ()):
        marked = marked_epochs(schedule, last)  # type: ignore[arg-type]
        assert marked[-1] == last
        assert list(marked) == sorted(set(marked))
        assert all(is_marked(schedule, epoch) for epoch in marked[:-1])  # type: ignore[arg-type]


def test_the_papers_epochs() -> None:
    marked = marked_epochs("paper", 10_000)
    assert marked[:22] == (*range(1, 21), 25, 30)
    assert [e for e in marked if 90 <= e <= 400] == [
        90,
        95,
        100,
        110,
        120,
        130,
        140,
        150,
        160,
        170,
        180,
        190,
        200,
        300,
        400,
    ]
    assert len(marked) == 144


def test_a_list_is_taken_as_it_is() -> None:
    assert marked_epochs((7, 3), 10) == (3, 7, 10)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ("often", "marked epochs 'often': expected log, paper or a list of epochs"),
        ((3, 11), "marked epoch 11 is outside the training: expected 0 to 10"),
        ((-1,), "marked epoch -1 is outside the training: expected 0 to 10"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule: object, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        marked_epochs(schedule, 10)  # type: ignore[arg-type]
