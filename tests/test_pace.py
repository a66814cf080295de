"""The number of threads is the fastest here and now, and an epoch that has become much slower is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from runs import TINY
from unetscope.base import NoProgress
from unetscope.runs import experiment, pace
from unetscope.runs.building import built_network
from unetscope.runs.experiment import prepare
from unetscope.runs.pace import Pace, chosen_threads, fastest_threads
from unetscope.training import TrainingConfig, preset_config


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[int]:
    """Steps that take so many seconds with so many threads; the numbers that were tried."""
    tried: list[int] = []

    def of_step(step: Callable[[], object]) -> float:
        step()
        tried.append(torch.get_num_threads())
        return seconds[tried[-1]]

    monkeypatch.setattr(pace, "_seconds", of_step)
    return tried


@pytest.mark.parametrize(
    ("seconds", "threads", "tried"),
    [
        ({4: 1.0, 2: 1.9, 1: 3.7}, 4, [4, 2]),
        ({4: 1.95, 2: 0.90, 1: 0.60}, 1, [4, 2, 1]),
        ({4: 1.95, 2: 0.60, 1: 0.90}, 2, [4, 2, 1]),
        ({4: 1.00, 2: 0.95, 1: 1.9}, 4, [4, 2, 1]),
        ({4: 1.00, 2: 1.05, 1: 0.5}, 1, [4, 2, 1]),
    ],
)
@pytest.mark.usefixtures("four_threads")
def test_the_fastest_number_of_threads_is_taken(
    seconds: dict[int, float], threads: int, tried: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = timed(monkeypatch, seconds)
    network = built_network(preset_config("demo", TINY), 3)
    assert fastest_threads(network, TrainingConfig(device="cpu"), (3, 16, 16))[0] == threads
    assert seen == tried
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_timing_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {4: 1.0, 2: 2.0})
    network = built_network(preset_config("demo", TINY), 3)
    network.model.append = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    before = {name: value.clone() for name, value in network.model.state_dict().items()}
    state = torch.get_rng_state()
    fastest_threads(network, TrainingConfig(device="cpu"), (3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in network.model.state_dict().items())
    assert all(weight.grad is None for weight in network.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


class Following(nn.Module):
    """Binds a buffer anew in each pass, as moving averages do."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.seen = 0.9 * self.seen + 0.1 * images.mean().detach()
        return (images[:, :1] * self.scale).sigmoid()


@pytest.mark.usefixtures("four_threads")
def test_a_buffer_that_is_bound_anew_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SECONDS_TIMED", 0.01)
    network = replace(built_network(preset_config("demo", TINY), 3), model=Following())
    fastest_threads(network, TrainingConfig(device="cpu"), (3, 16, 16))
    assert torch.equal(network.model.seen, torch.zeros(1))


@pytest.mark.usefixtures("four_threads")
def test_a_run_takes_them_says_so_and_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    progress = NoProgress()
    progress.warn = warnings.append  # type: ignore[method-assign]
    monkeypatch.setattr(experiment, "fastest_threads", lambda *_: (1, {4: 1.96, 2: 0.9, 1: 0.5}))
    config = preset_config("demo", {**TINY, "threads": None})
    assert prepare(config, progress).config.threads == 1
    assert torch.get_num_threads() == 1
    assert warnings[0] == (
        "1 of 4 threads: a training step takes 0.5 s with 1 and 2 s with 4, as beside a busy process (--threads chooses)"
    )
    assert prepare(preset_config("demo", {**TINY, "threads": 3})).config.threads == 3


def test_nothing_is_timed_where_there_is_nothing_to_choose() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    network = built_network(preset_config("demo", TINY), 3)
    assert fastest_threads(network, TrainingConfig(device="cpu"), (3, 16, 16)) == (1, {})
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "slowed"),
    [
        ([1.0] * 40, 0),
        ([1.0] * 20 + [9.0] + [1.0] * 9, 0),  # one slow epoch
        ([1.0] * 20 + [1.8] * 9, 0),  # somewhat slower
        ([0.01] * 20 + [0.09] * 9, 0),  # too short to matter
        ([3.0] * 4 + [1.0] * 20, 0),  # they have become faster
        ([1.0] * 20 + [2.5] * 9, 7),
    ],
)
def test_much_slower_epochs_are_noticed_once(seconds: list[float], slowed: int) -> None:
    warnings: list[str] = []
    noticed = Pace(warnings.append)
    assert sum(bool(noticed.note(each)) for each in seconds) == slowed
    assert len(warnings) == min(slowed, 1)


def test_the_most_threads_that_are_nearly_as_fast() -> None:
    assert chosen_threads({8: 1.05, 4: 1.0, 2: 1.4}) == 8
