"""Save and load a network with its architecture in one safetensors file.

The header holds the architecture as JSON. Nothing is unpickled, so that loading an untrusted file runs no code from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unetscope.base import NetworkError, first_line, whole_file
from unetscope.networks.unet import UNet

FILE = "model.safetensors"
FORMAT = "unetscope 1"
ARGUMENTS = ("width", "depth", "without", "in_channels", "out_channels")  # of a UNet, kept in the header
LARGEST_WIDTH = 4096


def save_model(model: UNet, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a network to one file, whole or not at all, and return the path. about: further values for the header, as JSON.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(UNet(2, depth=1, without=["skip1"]), Path(folder, "model.safetensors"))
    ...     load_model(folder)(torch.rand(1, 3, 8, 8)).shape
    torch.Size([1, 1, 8, 8])
    """
    header = {
        "format": FORMAT,
        "network": json.dumps({name: getattr(model, name) for name in ARGUMENTS}),
        "about": json.dumps(dict(about or {})),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as beside:
        save_file(tensors, beside, header)
    return Path(path)


def load_model(path: str | Path) -> UNet:
    """The network that `unetscope slim` wrote, in evaluation mode. path: of the file, or of the folder that holds it.

    Raises: NetworkError if there is no such file, or its weights do not fit the network that its header describes.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise NetworkError(f"no network in {path}: expected a file written by unetscope slim")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise NetworkError(f"{path} has no network in its header: expected a file written by unetscope slim")
            arguments = json.loads(header["network"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        for name in ("width", "in_channels", "out_channels"):
            if not 1 <= arguments[name] <= LARGEST_WIDTH:
                value = f"a width of {arguments[name]}" if name == "width" else f"channels: {arguments[name]}"
                raise NetworkError(f"{path} names {value}: expected 1 to {LARGEST_WIDTH}")
        # Without memory for the weights: a header may describe a network larger than memory, and the file holds them anyway.
        with torch.device("meta"):
            model = UNet(**{name: arguments[name] for name in ARGUMENTS})
        model.load_state_dict(weights, assign=True)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise NetworkError(f"{path} cannot be read as a network ({first_line(error)})") from None
    return model.eval()
