"""Write a network that lacks parts or has thin skips, and build it again from code: nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unetscope.base import (
    NetworkError,
    code_text,
    consent,
    file_digest,
    first_line,
    is_consented,
    load_weights,
    parse_arguments,
    read_json,
    save_tensors,
    whole_file,
    with_digest,
    without_digest,
)
from unetscope.networks.inspection import build_network, inspect
from unetscope.networks.rewired import Rewired, Step
from unetscope.networks.surgery import without
from unetscope.networks.thinning import thinned
from unetscope.networks.unet import FILE

DESCRIPTION = "network.json"
FORMAT, FIRST_FORMAT = "unetscope parts 2", "unetscope parts 1"  # the first knew a step of each kind
MOST_STEPS = 100
MOST_VALUES = 2**26  # of an example, so that a file cannot ask for more memory than there is

Build = Callable[[], nn.Module]


def save_parts(network: Rewired, folder: str | Path, built_by: str = "", arguments: Sequence[str] = ()) -> Path:
    """Write a network that `without` or `thinned` made to a folder, as `network.json` and `model.safetensors`; the folder.

    built_by: the code of the original network, as `FILE.py:NAME` or `package.module:NAME`, so that it can be built again.
    arguments: of it, such as `width=16`.

    >>> import tempfile
    >>> from unetscope.networks.unet import UNet
    >>> model, x = UNet(2, depth=2), torch.rand(1, 3, 16, 16)
    >>> smaller = without(model, inspect(model, x), "skip1", "level2").eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_parts(smaller, folder)
    ...     again = load_parts(folder, lambda: UNet(2, depth=2))
    >>> torch.equal(again(x), smaller(x))
    True
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():  # tied weights are written under each of their names
        tensors[name] = value.detach().cpu().contiguous().clone()
    with whole_file(folder / FILE) as beside:
        save_tensors(tensors, beside)
    description = {
        "format": FORMAT,
        "network": built_by,
        "arguments": list(arguments),
        "code signature": consent(code_text(built_by, arguments)) if built_by else "",
        "steps": [
            {"left out": list(step.left_out), "constants": step.constants, "thinned": step.thinned}
            for step in network.surgery_record.steps
        ],
        "example": [_described(value) for value in network.surgery_record.example],
        "weights": file_digest(folder / FILE),
    }
    with whole_file(folder / DESCRIPTION) as beside:
        beside.write_text(json.dumps(with_digest(description), indent=2) + "\n", encoding="utf-8")
    return folder


def load_parts(folder: str | Path, build: Build | None = None) -> Rewired:
    """A network that `save_parts` wrote, in evaluation mode: the original is built, cut as it was, and given the weights.

    build: makes the original network; by default the code that `network.json` names is imported, and so runs, if that file
    was written by you on this machine.

    Raises: NetworkError if the folder has no such network, names code that you have not run, or if its weights do not fit
    what is built.
    """
    folder = Path(folder)
    try:
        for name in (DESCRIPTION, FILE):
            if (folder / name).exists() and not (folder / name).is_file():  # a pipe, whose reading may never end
                raise ValueError(f"{name} is not a file")
        description = without_digest(read_json(folder / DESCRIPTION))
        weights = _checked_weights(folder / FILE, description.get("weights"))
        if description.get("format") not in (FORMAT, FIRST_FORMAT):
            raise NetworkError(f"{folder / DESCRIPTION} is of another format: expected {FORMAT!r}")
        example, built_by = _examples(description["example"]), str(description["network"])
        steps = list(_steps(description))
        arguments, signature = description.get("arguments", []), description.get("code signature", "")
        is_trusted = is_consented(code_text(built_by, arguments), signature)
    except (
        OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError,
    ) as error:  # fmt: skip
        raise NetworkError(f"{folder} cannot be read as a network without parts ({first_line(error)})") from None
    if build is None and not built_by:
        raise NetworkError(f"{folder / DESCRIPTION} does not name the code of the network: give build=, which makes it")
    if build is None and not is_trusted:
        raise NetworkError(
            f"{folder / DESCRIPTION} names code that has not been run on this machine by you ({built_by[:200]!r}): if you "
            "trust it, give build=, which makes the network"
        )
    network = build() if build is not None else build_network(built_by, parse_arguments(arguments))
    for step in steps:
        structure = inspect(network, example)
        network = (
            thinned(network, structure, step.thinned, images=None)
            if step.thinned
            else without(network, structure, *step.left_out, constants=step.constants)
        )
    assert isinstance(network, Rewired)
    try:
        load_weights(network, weights)
    except (RuntimeError, ValueError) as error:
        raise NetworkError(f"{folder / FILE} does not fit the network that is built: {_reason(error)}") from None
    return network.eval()


def _checked_weights(path: Path, digest: str | None) -> dict[str, Tensor]:
    """The weights of a file. digest: of it, None if it is of an older version. Raises: ValueError if they are others."""
    if digest is not None and file_digest(path) != digest:
        raise ValueError(f"{path.name} is not as it was written: its SHA-256 differs from that in {DESCRIPTION}")
    return load_file(path)


def _steps(description: dict[str, Any]) -> Iterator[Step]:
    """What was done to the original, in order. Raises: ValueError for what is no step, or none."""
    described = description.get("steps")
    if described is None:  # of the first format
        thin = description.get("thinned", {})
        left_out = {"left out": description["left out"], "constants": description["constants"]}
        described = [left_out] * bool(left_out["left out"] or not thin) + [{"thinned": thin}] * bool(thin)
    if not described or len(described) > MOST_STEPS:
        raise ValueError(f"{len(described)} steps: expected 1 to {MOST_STEPS}")
    for each in described:
        yield Step(
            left_out=tuple(map(str, each.get("left out", ()))),
            constants={str(name): str(kept) for name, kept in each.get("constants", {}).items()},
            thinned={str(name): int(kept) for name, kept in each.get("thinned", {}).items()},
        )


def _reason(error: RuntimeError | ValueError) -> str:
    """What does not fit, of a message that names the module first."""
    return " ".join(str(error).split("\n\t")[1:2]) or first_line(error)


def _described(value: Any) -> Any:
    """An argument of the network for JSON: a tensor as its shape and type, a plain value as it is."""
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise NetworkError(f"an argument of the network is a {type(value).__name__}, which network.json cannot hold")


def _examples(described: list[Any]) -> tuple[Any, ...]:
    """The arguments of a pass. Raises: ValueError for none, or for more values than a network needs."""
    values = sum(torch.Size(each["shape"]).numel() for each in described if isinstance(each, dict))
    if not described or values > MOST_VALUES:
        raise ValueError(f"an example of {len(described)} arguments and {values} values")
    return tuple(map(_example, described))


def _example(described: Any) -> Any:
    if not isinstance(described, dict):
        return described
    shape, dtype = described["shape"], getattr(torch, described["dtype"])
    if torch.Size(shape).numel() > MOST_VALUES or not isinstance(dtype, torch.dtype):
        raise ValueError(f"an example of shape {shape} and type {described['dtype']}")
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return values.to(dtype)
