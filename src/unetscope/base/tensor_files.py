"""Write tensors to a safetensors file, and give a network those that were read."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unetscope.base.errors import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors of any shapes, by name, with texts for the header.

    Raises: OSError, as of other files, where safetensors has an error of its own: the disk is full, or may not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # loads torch, which tables and figures do without

    try:
        save_file(dict(tensors), path, None if metadata is None else dict(metadata))
    except SafetensorError as failure:
        if number := re.search(r"\(os error (\d+)\)", str(failure)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
        raise OSError(errno.ENOSPC, first_line(failure)) from None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, assign: bool = False) -> None:
    """Give a network weights by name. assign: put them in the place of its own, which then have no memory of their own.

    Raises: RuntimeError, as `load_state_dict`, for weights of other names or shapes; ValueError for whole numbers in the place
    of floating-point ones, which PyTorch converts without a word.
    """
    for name, own in model.state_dict().items():
        if name in weights and weights[name].is_floating_point() != own.is_floating_point():
            raise ValueError(f"{name} is of {weights[name].dtype}, expected {own.dtype}")
    model.load_state_dict(weights, assign=assign)
