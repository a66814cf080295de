"""A network with its architecture in one file that nobody has to trust: written, and read back.

The weights are safetensors; what the network is stands in the header as JSON, so reading it runs nothing that a file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unetscope.base.errors import NetworkError
from unetscope.base.files import whole_file
from unetscope.networks.unet import UNet

FILE = "model.safetensors"
FORMAT = "unetscope 1"
LARGEST_WIDTH = 4096


def save_model(model: UNet, path: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a network to one file, whole or not at all; returns its path. about: what else its header is to say, as JSON.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_model(UNet(2, depth=1, without=["skip1"]), Path(folder, "model.safetensors"))
    ...     load_model(folder)(torch.rand(1, 3, 8, 8)).shape
    torch.Size([1, 1, 8, 8])
    """
    names = ("width", "depth", "without", "in_channels", "out_channels")
    header = {
        "format": FORMAT,
        "network": json.dumps({name: getattr(model, name) for name in names}),
        "about": json.dumps(dict(about or {})),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as beside:
        save_file(tensors, beside, header)
    return Path(path)


def load_model(path: str | Path) -> UNet:
    """The network that `unetscope slim` wrote, in evaluation mode. path: of the file, or of the folder that holds it.

    Raises: NetworkError for a file that is none, or whose weights are not those of the network that its header names.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise NetworkError(f"no network in {path}: expected a file written by unetscope slim")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise NetworkError(f"{path} has no network in its header: expected a file written by unetscope slim")
            about = json.loads(header["network"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        for name in ("width", "in_channels", "out_channels"):
            if not 1 <= about[name] <= LARGEST_WIDTH:
                what = "a width of" if name == "width" else "channels:"
                raise NetworkError(f"{path} names {what} {about[name]}: expected 1 to {LARGEST_WIDTH}")
        with torch.device(
            "meta"
        ):  # a header may name a network that no memory holds; its weights are in the file or nowhere
            model = UNet(
                about["width"],
                about["depth"],
                without=about["without"],
                in_channels=about["in_channels"],
                out_channels=about["out_channels"],
            )
        model.load_state_dict(weights, assign=True)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as damage:
        reason = str(damage).splitlines()[0] if str(damage) else type(damage).__name__
        raise NetworkError(f"{path} cannot be read as a network ({reason})") from None
    return model.eval()
