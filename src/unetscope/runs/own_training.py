"""One retraining by the user's own loop: build, cut, hand over, keep the scores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import torch

from unetscope.base import RunFolderError, TrainingError, first_line
from unetscope.networks import named_object
from unetscope.runs.building import BuiltNetwork, network_of_code
from unetscope.runs.code_consent import LOOP_NETWORK
from unetscope.runs.folder import RunFolder, images_of
from unetscope.table import EpochRecord
from unetscope.training import Checkpoints, RunConfig


def built_by_code(folder: RunFolder, config: RunConfig) -> BuiltNetwork:
    """The network that a configuration's code builds for the images of a run in a loop of its own, with its seed's weights.

    Raises: RunFolderError if the run does not say what images it has, or if the code has come to build another network.
    """
    torch.manual_seed(config.seed)
    built = network_of_code(config.network, *images_of(folder))
    kept = folder.facts.get(LOOP_NETWORK, {}).get("fingerprint", "")  # none of a run of an earlier version
    if kept and kept != built.fingerprint:
        raise RunFolderError(
            f"{config.network.code} builds another network than the one that the first variants of {folder.path} were made of: "
            "bring the code back, or remove the run's folder verification and name the loop again"
        )
    return built


def loop_facts(built: BuiltNetwork) -> dict[str, Any]:
    """What a run keeps of the network that its loop trains."""
    skips = [skip.name for skip in built.skips]
    return {LOOP_NETWORK: {"class": type(built.model).__name__, "fingerprint": built.fingerprint, "skips": skips}}


def train_by_code(
    folder: RunFolder, config: RunConfig, built: BuiltNetwork, on_epoch: Callable[[EpochRecord], None] = lambda _: None
) -> None:
    """Give a network to the user's function, and keep its scores and its last weights in a run folder.

    The function is called with the network, the seed, a folder of its own, and the number of epochs. It returns the score of
    each epoch, as a mapping or a list, or yields pairs of epoch and score as they come. A score is a number, or the numbers of
    the validation images in their order. A job that was killed calls it again with the same folder.

    Raises: TrainingError for a function that fails, or gives no score after the last epoch.
    """
    assert config.network.trained_by is not None
    train = named_object(config.network.trained_by)
    training_folder = folder.path / "training"
    training_folder.mkdir(exist_ok=True)
    torch.manual_seed(config.seed)
    epochs, started, last = config.training.epochs, time.monotonic(), max(0, folder.last_epoch())
    try:
        for epoch, scores in _scores(train(built.model, config.seed, training_folder, epochs)):
            scored = [score for score in scores if not math.isnan(score)]  # an image without a label may have none
            if not 1 <= epoch <= epochs or not scored or not all(map(math.isfinite, scored)):
                raise ValueError(
                    f"scores {scores[:3]} of epoch {epoch}: expected numbers, for each of the epochs 1 to {epochs}"
                )
            per_image = scores if len(scores) > 1 else ()
            nan, seconds = math.nan, time.monotonic() - started
            record = EpochRecord(epoch, nan, nan, nan, sum(scored) / len(scored), seconds, dice_per_image=per_image)
            folder.write_epoch(record)
            on_epoch(record)
            started, last = time.monotonic(), max(last, epoch)
    except Exception as failure:
        raise TrainingError(f"{config.network.trained_by} failed: {first_line(failure)}") from failure
    if last < epochs:
        raise TrainingError(f"{config.network.trained_by} gave scores up to epoch {last}, expected {epochs}")
    # a checkpoint holds an optimizer's state too, which this training kept for itself
    Checkpoints(folder.checkpoints).save(epochs, built.model, torch.optim.SGD(built.model.parameters(), lr=1.0))


def _is_pair(item: Any) -> bool:
    """Whether it is an epoch with its score, and not the scores of two images."""
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    return isinstance(item[0], Integral) and not isinstance(item[0], bool)


def _scores(by_epoch: Any) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Epochs with their scores, of a mapping, of pairs, or of a list whose first entry is that of epoch 1."""
    if isinstance(by_epoch, Mapping):
        by_epoch = by_epoch.items()
    if not isinstance(by_epoch, Iterable):
        raise TypeError(
            f"it gave a {type(by_epoch).__name__}, expected the score of each epoch, as a mapping or a list"
        )
    for number, item in enumerate(by_epoch, start=1):
        epoch, score = item if _is_pair(item) else (number, item)
        yield int(epoch), tuple(map(float, score)) if isinstance(score, Iterable) else (float(score),)
