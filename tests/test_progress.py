"""Progress of a command where the standard error is a file or a pipe."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetscope.cli.progress import Lines
from unetscope.cli.terminal import LOG_WIDTH


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of(seconds_a_step: float, steps: int, note: str = "") -> list[str]:
    """What is written of one stage."""
    stream, clock = io.StringIO(), Clock()
    progress = Lines(stream, clock)
    progress.stage("training", steps)
    for step in range(1, steps + 1):
        clock.now += seconds_a_step
        progress.advance(step, note)
    progress.end()
    return stream.getvalue().splitlines()


def test_a_short_stage_is_one_line() -> None:
    assert lines_of(0.1, 40) == ["training 40/40, 0:04 elapsed"]


def test_a_long_stage_says_on_the_way_how_long_it_will_take() -> None:
    lines = lines_of(20.0, 6, "measuring epoch 4, 45%")
    assert lines[0] == "training 2/6, 0:40 elapsed, 1:20 left, measuring epoch 4, 45%"
    assert lines[-1] == "training 6/6, 2:00 elapsed, measuring epoch 4, 45%"


def test_what_an_earlier_job_has_done_took_no_time_of_this_one() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Lines(stream, clock)
    progress.stage("training", 1000, 350)
    clock.now += 100
    progress.advance(370)
    assert stream.getvalue() == "training 370/1000, 1:40 elapsed, 52:30 left\n"


def test_a_log_of_days_stays_readable() -> None:
    lines = lines_of(60.0, 10_000)
    assert 50 < len(lines) < 500
    assert lines[-1] == "training 10000/10000, 6 d 22:40:00 elapsed"


@pytest.mark.long
@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=300))
def test_no_line_is_wider_than_a_log_or_holds_control_characters(name: str, note: str, warning: str) -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Lines(stream, clock)
    progress.stage(name, 3)
    clock.now = 31
    progress.advance(1, note)
    progress.warn(warning)
    progress.end()
    for line in stream.getvalue().split("\n"):
        assert len(line) <= LOG_WIDTH
        assert all(letter.isprintable() for letter in line)


@pytest.mark.long
def test_each_stage_of_a_command_in_a_pipe_ends_with_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unetscope", "selfcheck"], capture_output=True, text=True, check=True, timeout=300
    )
    assert re.fullmatch(r"measuring (\d+)/\1, \d+:\d\d elapsed\n", done.stderr.splitlines(keepends=True)[-1]), (
        done.stderr
    )
