"""Inspect any network: record one forward pass, detect its skips, choose and label its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unetscope.activations import record_graph, unwrap_model
from unetscope.base import NetworkError, UnetscopeError, first_line, preserve_rng
from unetscope.networks.layer_labels import describe
from unetscope.networks.levels import Levels
from unetscope.networks.skip_detection import find_joins
from unetscope.networks.structure import Detail, Structure


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
    return describe(name, levels, find_joins(levels), detail)
