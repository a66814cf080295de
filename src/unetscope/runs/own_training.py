"""One retraining by the user's own loop: build, cut, hand over, keep the scores."""

from __future__ import annotations

import inspect
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetscope.base import InvalidArgument, RunFolderError, TrainingError, first_line, preserve_rng, seed_all
from unetscope.networks import named_object
from unetscope.runs.building import BuiltNetwork, network_of_code
from unetscope.runs.code_consent import LOOP_NETWORK
from unetscope.runs.folder import RunFolder, images_of
from unetscope.table import EpochRecord
from unetscope.training import Checkpoints, RunConfig


@preserve_rng()
def built_by_code(folder: RunFolder, config: RunConfig) -> BuiltNetwork:
    """The network that a configuration's code builds for the images of a run in a loop of its own, with its seed's weights,
    whether torch, NumPy or Python draws them.

    Raises: RunFolderError if the run does not say what images it has, or if the code has come to build another network.
    """
    seed_all(config.seed)
    built = network_of_code(config.network, *images_of(folder))
    kept = folder.facts.get(LOOP_NETWORK, {}).get("fingerprint", "")  # none of a run of an earlier version
    if kept and kept != built.fingerprint:
        raise RunFolderError(
            f"{config.network.code} builds another network than when the loop of {folder.path} was named: see that it builds "
            "the same each time, or remove the run's folder verification and name the loop again"
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
    training_folder = folder.path / "training"
    training_folder.mkdir(exist_ok=True)
    torch.manual_seed(config.seed)
    epochs, started, last = config.training.epochs, time.monotonic(), max(0, folder.last_epoch())
    for epoch, scores in _scores_of_loop(config, built, training_folder):
        scored = [score for score in scores if not math.isnan(score)]  # an image without a label may have none
        per_image = scores if len(scores) > 1 else ()
        nan, seconds = math.nan, time.monotonic() - started
        record = EpochRecord(epoch, nan, nan, nan, sum(scored) / len(scored), seconds, dice_per_image=per_image)
        folder.write_epoch(record)
        on_epoch(record)
        started, last = time.monotonic(), max(last, epoch)
    if last < epochs:
        raise TrainingError(f"{config.network.trained_by} gave scores up to epoch {last}, expected {epochs}")
    # a checkpoint holds an optimizer's state too, which this training kept for itself
    Checkpoints(folder.checkpoints).save(epochs, built.model, torch.optim.SGD(built.model.parameters(), lr=1.0))


def loop_function(named: str) -> Callable[..., Any]:
    """The user's function that trains, by its name.

    Raises: NetworkError if there is none; InvalidArgument for what cannot be called as such a function is.
    """
    train = named_object(named)
    try:
        inspect.signature(train).bind("model", "seed", "folder", "epochs")
    except (TypeError, ValueError) as error:  # the latter of what does not tell its arguments
        if callable(train) and isinstance(error, ValueError):
            return train
        raise InvalidArgument(
            f"{named} is to be called as train(model, seed, folder, epochs), and cannot be: {first_line(error)}"
        ) from None
    return train  # type: ignore[no-any-return]


class _UnexpectedScoresError(Exception):
    """The user's function gives something else than the scores of epochs."""


def _scores_of_loop(
    config: RunConfig, built: BuiltNetwork, training_folder: Path
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """The scores of the user's function, epoch after epoch. Raises: TrainingError if it fails, or gives something else."""
    named, epochs = str(config.network.trained_by), config.training.epochs
    train, images = loop_function(named), 0
    try:
        for epoch, scores in _scores(train(built.model, config.seed, training_folder, epochs)):
            finite = [math.isfinite(score) for score in scores if not math.isnan(score)]
            if not 1 <= epoch <= epochs or not finite or not all(finite):
                raise _UnexpectedScoresError(
                    f"scores {scores[:3]} of epoch {epoch}: expected numbers, for each of the epochs 1 to {epochs}"
                )
            if images not in (0, len(scores)):
                raise _UnexpectedScoresError(
                    f"{len(scores)} scores of epoch {epoch} and {images} of the one before: expected those of the same images"
                )
            images = len(scores)
            yield epoch, scores
    except _UnexpectedScoresError as failure:
        raise TrainingError(f"{named} failed: {failure}") from None
    except SystemExit as failure:
        raise TrainingError(f"{named} ended the process ({_line_of(failure, train)})") from failure
    except Exception as failure:
        kind = type(failure).__name__
        raise TrainingError(
            f"{named} failed: {first_line(failure)} ({kind} in {_line_of(failure, train)})"
        ) from failure


def _line_of(failure: BaseException, train: Callable[..., Any]) -> str:
    """The line of the user's file where a failure was on its way, or else the line where it began."""
    lines = traceback.extract_tb(failure.__traceback__)
    file = getattr(getattr(train, "__code__", None), "co_filename", "")
    line = next((line for line in reversed(lines) if line.filename == file), lines[-1])
    return f"{Path(line.filename).name}, line {line.lineno}"


def _scores(by_epoch: Any) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Epochs with their scores, of a mapping, of pairs, or of a list whose first entry is that of epoch 1."""
    if isinstance(by_epoch, Mapping):
        for epoch, score in by_epoch.items():
            if not _is_integer(epoch):
                raise _UnexpectedScoresError(f"epoch {epoch!r}: expected a whole number, from 1 on")
            yield int(epoch), _numbers(score)
        return
    if not isinstance(by_epoch, Iterable) or isinstance(by_epoch, str | bytes):
        raise _UnexpectedScoresError(
            f"it gave a {type(by_epoch).__name__}, expected the score of each epoch, as a mapping or a list"
        )
    for number, item in enumerate(by_epoch, start=1):
        epoch, score = item if _is_pair(item) else (number, item)
        yield int(epoch), _numbers(score)


def _is_pair(item: Any) -> bool:
    """Whether it is an epoch with its score, and not the scores of two images."""
    return isinstance(item, tuple) and len(item) == 2 and _is_integer(item[0])


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _numbers(score: Any) -> tuple[float, ...]:
    """A score as numbers: one of a training, or one of each image. Tensors and arrays of any shape are taken as a list."""
    if isinstance(score, Tensor | np.ndarray):
        score = score.reshape(-1).tolist()
    numbers = tuple(score) if isinstance(score, list | tuple) else (score,)
    for number in numbers:
        if isinstance(number, str | bytes) or not hasattr(number, "__float__"):
            raise _UnexpectedScoresError(
                f"a score is a {type(number).__name__}, expected a number, or a list of those of the validation images"
            )
    return tuple(map(float, numbers))
