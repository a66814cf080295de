"""Weights, optimizer and random state on disk, whole or not at all, read back without anybody's pickle.

A checkpoint is a folder `epoch-00010` with `weights.safetensors` (the network's, to use anywhere) and `state.safetensors`
(what a training needs to continue: optimizer tensors, random state, and as JSON the optimizer's numbers), and `SHA256SUMS`
with their digests, which are compared before they are read. It is written beside and renamed, so a kill at any moment leaves
every checkpoint that was there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from unetscope.base import (
    TrainingError,
    check_sum,
    first_line,
    flush_folder,
    load_weights,
    naming,
    parse_json,
    save_tensors,
    write_sums,
)
from unetscope.training.checkpoint_names import checkpoint_epochs, checkpoint_name

WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
# A checkpoint holds each weight at most four times (with two moments of Adam and a master copy), random state and headers.
MOST_COPIES, MOST_BYTES_BESIDE = 4, 32 * 2**20
# What reading a file and putting its values into an optimizer raises where somebody else wrote them.
HOW_STEPS_ARE_MADE = {
    "fused",
    "foreach",
    "capturable",
    "differentiable",
}  # of an optimizer's settings, not what they are
_DAMAGE = (OSError, SafetensorError, KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in one folder, which is made when the first one is saved."""

    folder: Path

    def epochs(self) -> tuple[int, ...]:
        """The epochs of which there is a checkpoint, ascending."""
        return checkpoint_epochs(self.folder)

    def path(self, epoch: int) -> Path:
        """The folder of one checkpoint."""
        return self.folder / checkpoint_name(epoch)

    def save(self, epoch: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Write the checkpoint of an epoch, unless it is there already.

        Raises: OSError that names the checkpoint, such as of a full disk.
        """
        if self.path(epoch).exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = self.folder / f".{checkpoint_name(epoch)}.{os.getpid()}.part"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            self._write(beside, epoch, model, optimizer)
            beside.rename(self.path(epoch))
            flush_folder(self.folder)
        except OSError as failure:
            shutil.rmtree(beside, ignore_errors=True)
            raise naming(failure, self.path(epoch)) from None

    def _write(self, beside: Path, epoch: int, model: nn.Module, optimizer: Optimizer) -> None:
        tensors, numbers = _flattened(optimizer)
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        save_tensors(_contiguous(model.state_dict()), beside / WEIGHTS, {"epoch": str(epoch)})
        save_tensors(_contiguous(tensors), beside / STATE, {"optimizer": json.dumps(numbers), "epoch": str(epoch)})
        for written_file in (beside / WEIGHTS, beside / STATE, write_sums(beside, [WEIGHTS, STATE])):
            with written_file.open("rb+") as written:
                os.fsync(written.fileno())
        flush_folder(beside)

    def restore(self, epoch: int, model: nn.Module, optimizer: Optimizer) -> None:
        """Put network, optimizer and random state back to where they were at the end of an epoch.

        Raises: TrainingError if the checkpoint is damaged or of another network, naming the folder.
        """
        self.load_weights(epoch, model)
        try:
            with safe_open(self._checked(epoch, STATE, model), framework="pt") as state:
                numbers = parse_json((state.metadata() or {})["optimizer"])
                tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118 (not a dict)
            random = {name: tensors.pop(name) for name in ("random.cpu", "random.cuda") if name in tensors}
            state = _nested(tensors, numbers)
            _refuse_other_state(optimizer, state)
            optimizer.load_state_dict(state)
            _lay_out_as_weights(optimizer)
            torch.set_rng_state(random["random.cpu"])
        except _DAMAGE as damage:
            raise self._damaged(epoch, damage) from None
        if "random.cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["random.cuda"])

    def load_weights(self, epoch: int, model: nn.Module) -> None:
        """Give a network the weights of an epoch. Raises as `restore`."""
        try:
            weights = load_file(self._checked(epoch, WEIGHTS, model))
        except _DAMAGE as damage:
            raise self._damaged(epoch, damage) from None
        try:
            load_weights(model, weights)
        except ValueError as damage:
            raise self._damaged(epoch, damage) from None
        except RuntimeError:
            raise TrainingError(
                f"checkpoint {self.path(epoch)} is of another network than the run's configuration"
            ) from None

    def _checked(self, epoch: int, name: str, model: nn.Module) -> Path:
        """The path of a file of a checkpoint, whose size and digest are what they should be. Raises: ValueError, OSError."""
        path = self.path(epoch) / name
        if not path.is_file():  # which may be missing, or a pipe or a device, whose reading never ends
            raise ValueError(f"{name} is not a file")
        of_network = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        if (size := path.stat().st_size) > MOST_COPIES * of_network + MOST_BYTES_BESIDE:
            raise ValueError(f"{name} has {size} bytes, too many for a network of {of_network}")
        check_sum(path)
        return path

    def remove(self, epoch: int) -> None:
        """Take a checkpoint away, if it is there; a kill on the way leaves none that is half there."""
        aside = self.folder / f".epoch-{epoch:05d}.{os.getpid()}.part"
        if self.path(epoch).exists():
            self.path(epoch).rename(aside)
            shutil.rmtree(aside, ignore_errors=True)

    def remove_unfinished(self) -> None:
        """Take away what a kill left half written."""
        for path in self.folder.glob(".epoch-*.part"):
            shutil.rmtree(path, ignore_errors=True)

    def _damaged(self, epoch: int, damage: Exception) -> TrainingError:
        return TrainingError(
            f"checkpoint {self.path(epoch)} cannot be read ({first_line(damage)}): "
            "remove that folder to go on from the one before"
        )


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a file takes them: those of one memory, as tied weights are, each with a copy of its own."""
    apart: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        values = tensor.detach().contiguous()
        memory = values.untyped_storage().data_ptr()
        apart[name] = values.clone() if memory in memories else values
        memories.add(memory)
    return apart


def _lay_out_as_weights(optimizer: Optimizer) -> None:
    """Give every state tensor the memory layout of its weight; a fused step goes through both in the order of memory."""
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _flattened(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as named tensors, and the rest of it as plain numbers."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{name}"] = value
            else:
                numbers[f"{parameter}.{name}"] = value
    return tensors, {"groups": state["param_groups"], "numbers": numbers}


def _refuse_other_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Raises: ValueError for the state of other parameters, or settings of another kind; fused steps do not look at shapes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    needed = (
        {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) else set()
    )
    for number, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameters[number].shape:
                raise ValueError(f"{name} of parameter {number} has the shape {list(value.shape)}")
        if missing := sorted(needed - values.keys()):
            raise ValueError(f"there is no {missing[0]} of parameter {number}")
    for own, read in zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True):
        for name, value in own.items():
            kept = read.setdefault(name, value)
            if name in HOW_STEPS_ARE_MADE and (kept is None or isinstance(kept, bool)):
                continue  # another machine makes them otherwise
            if not _is_alike(value, kept):
                raise ValueError(f"{name} is {read[name]!r}, expected {value!r} or the like")


def _is_alike(value: Any, read: Any) -> bool:
    """Whether a setting can stand for another: a switch is the same, a number is one, and a list is as long."""
    if value is None or isinstance(value, bool):
        return bool(read is value)
    if isinstance(value, (int, float)):
        return isinstance(read, (int, float)) and not isinstance(read, bool) and math.isfinite(read)
    if isinstance(value, (list, tuple)):
        return isinstance(read, (list, tuple)) and len(read) == len(value) and all(map(_is_alike, value, read))
    return isinstance(value, Tensor) or isinstance(read, type(value))


def _nested(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_flattened`."""
    state: dict[int, dict[str, Any]] = {}
    for path, value in {**tensors, **rest["numbers"]}.items():
        parameter, _, name = path.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    return {"state": state, "param_groups": rest["groups"]}
