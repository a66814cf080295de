"""Build a network that the user names on the command line.

The file or module that defines it is imported, and so runs the user's own code.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import torch
from torch import nn

from unetscope.base import InvalidArgument, NetworkError, first_line, nearest
from unetscope.networks.inspection import inspect
from unetscope.networks.structure import Detail, Structure


def build_network(named: str) -> nn.Module:
    """The network `FILE.py:NAME` or `package.module:NAME`, or what it returns when called without arguments.

    Raises: InvalidArgument for a name of another form; NetworkError if there is no such network, or it cannot be built.

    >>> type(build_network("unetscope.networks.unet:UNet")).__name__
    'UNet'
    """
    place, _, name = named.rpartition(":")
    if not place or not name:
        raise InvalidArgument(f"network {named!r}: expected FILE.py:NAME or package.module:NAME")
    module = _module(place)
    if not hasattr(module, name):
        public = [attribute for attribute in vars(module) if not attribute.startswith("_")]
        raise NetworkError(f"{place} has no {name!r}: {nearest(name, public)}")
    network: Any = getattr(module, name)
    if not isinstance(network, nn.Module):
        try:
            network = network()
        except Exception as error:
            raise NetworkError(f"{named} cannot be built without arguments: {first_line(error)}") from None
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{named} gives a {type(network).__name__}, expected a network (torch.nn.Module)")
    return network


def inspect_shape(network: nn.Module, shape: str, detail: str | None = None) -> Structure:
    """The structure of a network for an image of a shape such as `3,128,128`.

    Raises: InvalidArgument for an invalid shape or detail; NetworkError if the network does not run on that shape.
    """
    if detail is not None and detail not in get_args(Detail):
        raise InvalidArgument(f"--every {detail}: expected {' or '.join(get_args(Detail))}")
    try:
        sides = [int(side) for side in shape.split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (3, 4) or min(sides) < 1:
        raise InvalidArgument(f"--shape {shape}: expected channels and two or three sides, such as 3,128,128")
    image = torch.rand((1, *sides), generator=torch.Generator().manual_seed(0))
    return inspect(network, image, detail=detail)  # type: ignore[arg-type]


def _module(place: str) -> ModuleType:
    path = Path(place)
    if place.endswith(".py") and not path.is_file():
        raise NetworkError(f"{place} does not exist")
    try:
        return _run(path) if place.endswith(".py") else importlib.import_module(place)
    except SystemExit:
        raise NetworkError(
            f"{place} ends the process where it is imported: put that under `if __name__ == '__main__'`"
        ) from None
    except Exception as error:
        raise NetworkError(f"{place} cannot be imported: {first_line(error)}") from None


def _run(path: Path) -> ModuleType:
    """A file as a module. It can import its neighbours."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no file of Python")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules.setdefault(spec.name, module)  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    return module
