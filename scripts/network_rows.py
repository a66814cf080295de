"""What docs/networks.md says of one network: its merges, and each of its parts left out."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import published
import unetscope as us
from unetscope.activations import eval_mode, kept_parameters
from unetscope.base.errors import UnetscopeError
from unetscope.networks.ablation import replace_streams
from unetscope.networks.equality import TOLERANCE, in_mode, tensors_of
from unetscope.networks.structure import JOIN_NAMES

ROOT = Path(__file__).parents[1]
NEW = {1: 2, 2: 2, 3: 1}  # images that a smaller network is compared on; volumes are slow in float64
ROUNDS, SECONDS = 5, 1.5  # of a timed pair of forward passes: so many, or as many as take this long


def code_digest() -> str:
    """A digest of the code that finds and removes parts, so that rows of other code are told apart."""
    digest = hashlib.sha256()
    for path in sorted(p for name in ("activations", "networks") for p in (ROOT / "src/unetscope" / name).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def row_of(network: published.Published) -> dict[str, Any]:
    """The columns of one network."""
    torch.manual_seed(0)
    model = network.build()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, *network.shape, generator=generator)
    new = torch.rand(NEW[len(network.shape) - 1], *network.shape, generator=generator)
    try:
        us.inspect(model, image)  # imports are not timed
    except UnetscopeError as refusal:
        return {"refusal": str(refusal)}
    started = time.process_time()
    structure = us.inspect(model, image)
    seconds = time.process_time() - started
    row: dict[str, Any] = {
        "merges": len(structure.merges),
        "kinds": list(dict.fromkeys(JOIN_NAMES[merge.kind] for merge in structure.merges)),
        "skips": len(structure.skips),
        "layers": f"{len(structure.layers)}" + (" (stages)" if structure.detail == "stages" else ""),
        "gaps": [gap.kind for gap in structure.gaps],
        "seconds": seconds,
    }
    row["parts"] = parts_of(model.eval(), structure, image, new)
    return row


# Parts left out.


def parts_of(model: nn.Module, structure: us.networks.Structure, image: Tensor, new: Tensor) -> list[dict[str, Any]]:
    """Each skip and level left out: how far from the same part silenced, what is left of the network, or the refusal."""
    names = [skip.name for skip in structure.skips]
    names += dict.fromkeys(re.sub(r"skip(\d+)[a-z]?", r"level\1", name) for name in names)
    rows, smaller = [], {}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for name in names:
        try:
            smaller[name] = network = us.without(model, structure, name)
        except UnetscopeError as refusal:
            rows.append({"part": name, "refusal": str(refusal)})
            continue
        rows.append({
            "part": name,
            "parameters": sum(parameter.numel() for parameter in network.parameters()) / parameters,
            "time": time_left(model, network.eval(), image),
            "notes": list(network.notes),
        })  # fmt: skip
    differing = {
        name: differences(model, smaller.pop(name), {name: structure.stream_of(name)}, new) for name in list(smaller)
    }
    return [row | differing.get(row["part"], {}) for row in rows]


def differences(model: nn.Module, smaller: nn.Module, streams: Any, new: Tensor) -> dict[str, Any]:
    """How far a network without a part is from the network with zeros instead, on new images, in float64 where both run so."""
    try:
        double = _differences(model.double(), smaller.double(), streams, new.double())
        if max(double["evaluation"], double["training"]) <= TOLERANCE:
            return double
        # a network that names a float32 number, such as an epsilon, is another network in float64
        single = _differences(model.float(), smaller.float(), streams, new)
        return {**single, "float32": True} if single["evaluation"] < double["evaluation"] else double
    except RuntimeError:  # of a network that names float32 in its code
        return {**_differences(model.float(), smaller.float(), streams, new), "float32": True}
    finally:
        model.float()


def _differences(model: nn.Module, smaller: nn.Module, streams: Any, images: Tensor) -> dict[str, Any]:
    differences: dict[str, Any] = {}
    for mode, training in (("evaluation", False), ("training", True)):
        difference = _difference(model, smaller, streams, images, training, dropout=True)
        if training and difference > TOLERANCE:
            without_dropout = _difference(model, smaller, streams, images, training, dropout=False)
            if without_dropout < difference:
                difference, differences["no_dropout"] = without_dropout, True
        differences[mode] = difference
    return differences


def _difference(
    model: nn.Module, smaller: nn.Module, streams: Any, images: Tensor, training: bool, *, dropout: bool
) -> float:
    zeros = replace_streams(model, streams, lambda _, stream: torch.zeros_like(stream), gradients=False)
    with _in_mode(model, training, dropout), zeros, SameDraws():
        silenced = tensors_of(model(images.clone()))
    with _in_mode(smaller, training, dropout), SameDraws():
        removed = tensors_of(smaller(images.clone()))
    # Outputs that hung on what is left out are gone; those that stay keep their order.
    return min(max(map(_relative, some, removed)) for some in itertools.combinations(silenced, len(removed)))


def _relative(silenced: Tensor, removed: Tensor) -> float:
    """The largest difference, relative to the largest value. Of outputs that are stacked, some may be gone."""
    stacked = silenced.ndim == removed.ndim > 2 and silenced.shape[2:] == removed.shape[2:]
    if stacked and silenced.shape[1] > removed.shape[1]:
        subsets = itertools.combinations(range(silenced.shape[1]), removed.shape[1])
        return min(_relative(silenced[:, list(indices)], removed) for indices in subsets)
    if silenced.shape != removed.shape:
        return math.inf
    assert bool(silenced.isfinite().all())
    return float((removed - silenced).abs().max() / silenced.abs().max().clamp_min(1e-30))


@contextmanager
def _in_mode(model: nn.Module, training: bool, dropout: bool) -> Iterator[None]:
    if not dropout:
        with in_mode(model, training):
            yield
        return
    with eval_mode(model), kept_parameters(model) if training else nullcontext():
        model.train(training)
        yield


class SameDraws(TorchDispatchMode):
    """Within the block, every draw of random numbers begins at the same seed, whatever was drawn before it."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in function.tags:
            torch.manual_seed(0)
        return function(*args, **(kwargs or {}))


def time_left(model: nn.Module, smaller: nn.Module, image: Tensor) -> float:
    """The time of a forward pass of the smaller network, as a share of the whole one's: the medians of passes in turn."""
    durations: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        model(image), smaller(image)
        started = time.process_time()
        for turn in range(ROUNDS):
            if turn and time.process_time() - started > SECONDS:
                break
            for network, seconds in zip((model, smaller), durations, strict=True):
                begun = time.process_time()
                network(image)
                seconds.append(time.process_time() - begun)
    whole, left = map(statistics.median, durations)
    return left / whole
