"""The speed of a training on a machine that others use too: how many threads it takes, and whether it has become slower.

The threads of a step wait for each other many times. Beside another busy process each wait is as long as the slowest of them
is displaced, so that fewer threads may be several times as fast. How many are fastest is measured, when a run begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import mean, median

import torch

from unetscope.activations import kept_buffers
from unetscope.base import preserve_rng
from unetscope.runs.building import BuiltNetwork
from unetscope.training import TrainingConfig, image_tensors, resolved_device, resolved_precision

SECONDS_TIMED, MOST_SECONDS_TIMED, FEWEST_STEPS, MOST_IMAGES = 0.5, 3.0, 3, 16
GAIN = 1.1  # by which fewer threads must be faster to be chosen
MUCH_SLOWER, EPOCHS_OF_LATE, FEWEST_EPOCHS_BEFORE = 2.0, 5, 10
SHORTEST_EPOCH = 0.05  # seconds; nobody waits for shorter ones


def fastest_threads(
    network: BuiltNetwork, config: TrainingConfig, shape: Sequence[int]
) -> tuple[int, Mapping[int, float]]:
    """The number of CPU threads with which a training step on images of a shape takes the least time now, and those times.

    All of torch's threads are tried, then half of them, and so on while that is no slower. On a GPU, and where torch has one
    thread, nothing is timed. The network, its gradients, the random state and the number of threads are left as they were.
    """
    most = torch.get_num_threads()
    if most == 1 or resolved_device(config) != "cpu":
        return most, {}
    seconds: dict[int, float] = {}
    try:
        with preserve_rng(), kept_buffers(network.model):
            step = _step(network, config, shape)
            threads = most
            while threads >= 1 and (not seconds or seconds[min(seconds)] <= GAIN * min(seconds.values())):
                torch.set_num_threads(threads)
                seconds[threads] = _seconds(step)
                threads //= 2
    finally:
        torch.set_num_threads(most)
    return chosen_threads(seconds), seconds


def chosen_threads(seconds: Mapping[int, float]) -> int:
    """The number of threads to take, by the seconds of a step with each: the most that are nearly as fast as the fastest.

    >>> chosen_threads({2: 1.95, 1: 0.88}), chosen_threads({4: 0.50, 2: 0.48, 1: 0.9})
    (1, 4)
    """
    return max(threads for threads, each in seconds.items() if each <= GAIN * min(seconds.values()))


def _step(network: BuiltNetwork, config: TrainingConfig, shape: Sequence[int]) -> Callable[[], object]:
    """A step forward and back without a change of weights."""
    images = torch.rand(min(config.batch_size, MOST_IMAGES), *shape)
    weights = [weight for weight in network.model.parameters() if weight.requires_grad]
    is_bfloat16 = resolved_precision(config) == "bfloat16"

    def step() -> object:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bfloat16):
            output = network.model(images)
        loss = torch.stack([tensor.float().mean() for tensor in image_tensors(output, len(shape) - 1)]).sum()
        return torch.autograd.grad(loss, weights, allow_unused=True)

    return step


def _seconds(step: Callable[[], object]) -> float:
    """Seconds of a step, on average: what else the machine does comes and goes."""
    took: list[float] = []
    while len(took) <= FEWEST_STEPS or sum(took[1:]) < SECONDS_TIMED:
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
        if sum(took) > MOST_SECONDS_TIMED:
            break
    return mean(took[1:] or took)  # the first one makes threads and plans


class Pace:
    """Notices when epochs have become much slower than they were.

    warn: is called the first time, with what to do.

    >>> pace = Pace(print)
    >>> [text for seconds in [1.0] * 20 + [3.0] * 4 if (text := pace.note(seconds))]
    epochs take 3.0 times as long as they did: another process is busy on this machine. End it or wait; a new run with fewer \
--threads is slowed less
    [', 3.0 times slower', ', 3.0 times slower']
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._seconds: list[float] = []
        self._has_warned = False

    def note(self, seconds: float) -> str:
        """After an epoch: what a line of progress says of it, nothing unless it is much slower than those before."""
        self._seconds.append(seconds)
        before = self._seconds[:-EPOCHS_OF_LATE]
        if len(before) < FEWEST_EPOCHS_BEFORE or (usual := median(before)) < SHORTEST_EPOCH:
            return ""
        if (factor := median(self._seconds[-EPOCHS_OF_LATE:]) / usual) < MUCH_SLOWER:
            return ""
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"epochs take {factor:.1f} times as long as they did: another process is busy on this machine. End it or wait; "
                "a new run with fewer --threads is slowed less"
            )
        return f", {factor:.1f} times slower"
