"""Inspect any network: record one forward pass, detect its skips, choose and label its layers.

A network that the command line names is built from its file or module, which is imported and so runs the user's own code.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, MappingProxyType, ModuleType
from typing import Any, get_args

import torch
from torch import nn

from unetscope.activations import record_graph, unwrap_model
from unetscope.base import InvalidArgument, NetworkError, UnetscopeError, first_line, nearest, preserve_rng
from unetscope.networks.layer_labels import describe
from unetscope.networks.levels import Levels
from unetscope.networks.skip_detection import find_joins
from unetscope.networks.structure import OPAQUE, REARRANGING, Detail, Structure


@preserve_rng()
def inspect(model: nn.Module, example: Any, *, detail: Detail | None = None) -> Structure:
    """Find the layers worth measuring, and every merge of a skip with the upsampled path.

    model: maps images to masks; it runs once and is left unchanged. example: the input, one image
    [1, channels, height, width], or a tuple of the network's arguments with the image first. detail: `kernels` for every
    tensor that a convolution makes, including what follows it up to the next (normalisation, activation, the sum of a residual
    block); `stages` for the last of these before the resolution changes or streams join. The default is `kernels` for up to
    forty of them.

    Layers are numbered as the paper numbers them: whatever has a kernel counts, and a merge takes the number of the upsampled
    stream that it joins. `skip1` is the skip that joins last, the top one.

    Raises: NetworkError if the network does not run on the example, or returns no tensor that is made from it.

    >>> from unetscope.networks.unet import UNet
    >>> structure = inspect(UNet(2, depth=2), torch.zeros(1, 3, 16, 16))
    >>> [layer.label for layer in structure.layers]
    ['1', '2', '3', '4', '5', '6', '7up', '7', '8', '9', '10up', '10', '11', '12', '13']
    >>> [(skip.name, skip.source, skip.merge) for skip in structure.skips]
    [('skip1', '2', '10'), ('skip2', '4', '7')]
    """
    image = example[0] if isinstance(example, tuple | list) else example
    if not isinstance(image, torch.Tensor) or image.ndim < 3:
        raise NetworkError("the example must be a tensor [1, channels, ...], one image as the network is given it")
    model = unwrap_model(model)
    name = type(model).__name__
    try:
        graph = record_graph(model, example)
    except UnetscopeError:
        raise
    except Exception as error:
        raise NetworkError(f"{name} does not run on an example {list(image.shape)}: {first_line(error)}") from error
    if not graph.outputs:
        raise NetworkError(f"{name} gives out no tensor that can be followed back to its input")
    levels = Levels(graph)
    arguments = tuple(example) if isinstance(example, tuple | list) else (example,)
    kept = tuple(value.detach().clone() if isinstance(value, torch.Tensor) else value for value in arguments)
    return replace(describe(name, levels, find_joins(levels), detail), example=kept)


def gives_probabilities(structure: Structure) -> bool | None:
    """Whether a network ends in a function that makes probabilities; None where its last function does not tell.

    >>> from unetscope.networks.unet import UNet
    >>> gives_probabilities(inspect(UNet(2, depth=1), torch.zeros(1, 3, 8, 8)))
    True
    """
    graph = structure.graph
    sides = len(graph[0].shape) - 2
    images = [graph[number] for number in graph.outputs if len(graph[number].shape) > sides] or [
        graph[graph.outputs[0]]
    ]
    last = max(images, key=lambda node: math.prod(node.shape[-sides:]))
    while last.inputs and last.name in REARRANGING | {"interpolate", "upsample", "to", "float"}:
        last = graph[last.inputs[0]]
    if last.name in OPAQUE | {"log_softmax", "logsigmoid", "log_sigmoid", "clamp", "argmax"}:
        return None
    return last.name in {"sigmoid", "softmax", "hardsigmoid"}


def build_network(named: str, arguments: Mapping[str, Any] = MappingProxyType({})) -> nn.Module:
    """The network `FILE.py:NAME` or `package.module:NAME`, or what it returns when called with the arguments.

    It runs what it names: give it no name that a file from outside holds.

    Raises: InvalidArgument for a name of another form; NetworkError if there is no such network, or it cannot be built.

    >>> type(build_network("unetscope.networks.unet:UNet", {"width": 2})).__name__
    'UNet'
    """
    network = named_object(named)
    is_built = isinstance(network, nn.Module)
    if not is_built:
        given = f"with {', '.join(f'{name}={value!r}' for name, value in arguments.items())}" if arguments else ""
        try:
            network = network(**arguments)
        except SystemExit:
            raise NetworkError(f"{named} ends the process when it is called: it shall return a network") from None
        except Exception as error:
            how = given or "without arguments"
            raise NetworkError(f"{named} cannot be built {how}: {first_line(error)}") from None
    elif arguments:
        raise NetworkError(f"{named} is a network already, which takes no arguments: name what builds it")
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{named} gives a {type(network).__name__}, expected a network (torch.nn.Module)")
    return copy.deepcopy(network) if is_built else network  # that one is the same each time it is named


def named_object(named: str) -> Any:
    """What `FILE.py:NAME` or `package.module:NAME` names. Raises as `build_network`."""
    place, _, name = named.rpartition(":")
    if not place or not name:
        raise InvalidArgument(f"network {named!r}: expected FILE.py:NAME or package.module:NAME")
    module = _module(place)
    if not hasattr(module, name):
        public = [attribute for attribute in vars(module) if not attribute.startswith("_")]
        raise NetworkError(f"{place} has no {name!r}: {nearest(name, public)}")
    return getattr(module, name)


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


_files: dict[tuple[Path, str], ModuleType] = {}  # by path and content


def _module(place: str) -> ModuleType:
    path = Path(place)
    if place.endswith(".py") and not path.is_file():
        raise NetworkError(f"{place} does not exist")
    try:
        return _run(path) if place.endswith(".py") else _imported(place)
    except SystemExit:
        raise NetworkError(
            f"{place} ends the process where it is imported: put that under `if __name__ == '__main__'`"
        ) from None
    except Exception as error:
        raise NetworkError(f"{place} cannot be imported: {first_line(error)}") from None


def _imported(name: str) -> ModuleType:
    """A module by its name, of the working folder too, as `python -m` finds it."""
    if (working := str(Path.cwd())) not in sys.path:
        sys.path.append(working)
    return importlib.import_module(name)


class _Source(SourceFileLoader):
    """Loads a file from its text: Python takes kept bytecode for that of an edit of the same size within one second."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _run(path: Path) -> ModuleType:
    """A file as a module, run once as long as it does not change: what two names of it stand for knows each other's classes.

    It can import its neighbours.
    """
    path = path.resolve()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    key = path, digest
    if key in _files:
        return _files[key]
    name = path.stem
    if name in sys.modules:  # of another file
        name = f"{name}_{hashlib.sha256(f'{path} {digest}'.encode()).hexdigest()[:12]}"
    loader = _Source(name, str(path))
    spec = ModuleSpec(name, loader, origin=str(path))
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    if (folder := str(path.parent)) not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module  # where dataclasses look up annotations
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _files[key] = module
    return module
