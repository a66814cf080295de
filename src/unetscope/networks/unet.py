"""The paper's U-Net, of any depth, with any of its skips left out.

Layers are numbered as in the paper: every layer with a kernel counts, down the encoder, through the bottom, up the decoder, to
the output. At depth 4 these are 1 to 23, with skips 2→20, 4→17, 6→14 and 8→11.

A network is saved with its architecture in one safetensors file, whose header holds the architecture as JSON. Nothing is
unpickled, so that loading an untrusted file runs no code from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unetscope.base import InvalidArgument, NetworkError, first_line, load_weights, parse_json, save_tensors, whole_file
from unetscope.table import MAX_DEPTH, SKIP, Layer, Part, Skip, skips_of_depth

FILE = "model.safetensors"
FORMAT = "unetscope 1"
ARGUMENTS = ("width", "depth", "without", "in_channels", "out_channels")  # of a UNet, kept in the header
DIGEST = "sha256"  # in the header: of the rest of it and of the weights
LARGEST_WIDTH = 4096


class UNet(nn.Module):
    """Ronneberger's U-Net as Lee & Bajić (2021) trained it; maps images to probabilities of the foreground, or of each class.

    Two 3×3 convolutions with ReLU a level, 2×2 max pooling, `width` channels at the top and twice as many at each level
    below, 2×2 stride-2 transposed convolutions without activation, concatenation, 1×1 convolution, sigmoid. Padding
    keeps the size. With several output channels a softmax over them takes the place of the sigmoid. Glorot-uniform weights,
    zero biases; no dropout, no normalisation.

    width: channels at full resolution. depth: how many times the image is halved, 1 to 6. without: skips to leave out, by
    name, `"skip1"` being the top one; at such a level the decoder continues with the upsampled path alone, and the
    convolution there reads half as many channels. in_channels: of the image. out_channels: 1 for binary masks, else one a
    class. initialisation:
    `"glorot"` as in the published code, or `"he"` for ReLUs (He et al., ICCV 2015).

    Input [batch, in_channels, height, width] in [0, 1], output [batch, out_channels, height, width] in [0, 1], float32.
    Source: Ronneberger et al., MICCAI 2015; Lee & Bajić, ISBI 2021, Fig. 1.
    Raises: InvalidArgument for a width, depth, channel count or skip outside its domain; NetworkError for an image whose
    height or width cannot be halved `depth` times.

    >>> sum(p.numel() for p in UNet(width=16).parameters())
    1941105
    >>> [skip.name for skip in UNet(width=2, without=("skip1", "skip3")).skips]
    ['skip2', 'skip4']
    >>> UNet(width=2)(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 1, 32, 32])
    """

    def __init__(
        self,
        width: int = 16,
        depth: int = 4,
        *,
        without: Collection[str] = (),
        in_channels: int = 3,
        out_channels: int = 1,
        initialisation: Literal["glorot", "he"] = "glorot",
    ) -> None:
        super().__init__()
        _check_positive(width=width, in_channels=in_channels, out_channels=out_channels)
        removed = removed_skips(depth, without)
        self.width, self.depth, self.in_channels, self.out_channels = width, depth, in_channels, out_channels
        self.without = tuple(map(str, sorted(removed)))
        self._joined = tuple(level for level in range(depth) if Part(SKIP, level + 1) not in removed)
        channels = [width * 2**level for level in range(depth + 1)]

        number = 0
        for level in range(depth + 1):  # the encoder, and the bottom as its last level
            below = in_channels if level == 0 else channels[level - 1]
            self.add_module(f"layer{number + 1}", _convolution(below, channels[level]))
            self.add_module(f"layer{number + 2}", _convolution(channels[level], channels[level]))
            number += 2
        self.pool = nn.MaxPool2d(2)
        for level in reversed(range(depth)):
            self.add_module(f"up{number + 1}", _transposed(channels[level + 1], channels[level]))
            if level in self._joined:
                self.add_module(f"merge{number + 1}", Concatenate())
            merged = 2 * channels[level] if level in self._joined else channels[level]
            self.add_module(f"layer{number + 2}", _convolution(merged, channels[level]))
            self.add_module(f"layer{number + 3}", _convolution(channels[level], channels[level]))
            number += 3
        self.add_module(f"layer{number + 1}", Probability(channels[0], out_channels))
        if initialisation == "he":
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        self.layers, self.skips = _describe(depth, removed)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, in_channels, height, width] in [0, 1] to the probability of the foreground, or of each class."""
        self._check_input(images)
        x, number = images, 0
        carried: dict[int, Tensor] = {}  # by level; a skip is released where it joins
        for level in range(self.depth + 1):
            x = self.get_submodule(f"layer{number + 1}")(x)
            x = self.get_submodule(f"layer{number + 2}")(x)
            number += 2
            if level < self.depth:
                if level in self._joined:
                    carried[level] = x
                x = self.pool(x)
        for level in reversed(range(self.depth)):
            x = self.get_submodule(f"up{number + 1}")(x)
            if level in self._joined:
                x = self.get_submodule(f"merge{number + 1}")(x, carried.pop(level))
            x = self.get_submodule(f"layer{number + 2}")(x)
            x = self.get_submodule(f"layer{number + 3}")(x)
            number += 3
        result: Tensor = self.get_submodule(f"layer{number + 1}")(x)
        return result

    def _check_input(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise NetworkError(
                f"images of shape {list(images.shape)}: expected [batch, {self.in_channels}, height, width]"
            )
        check_image_size((int(images.shape[2]), int(images.shape[3])), self.depth)


class Concatenate(nn.Module):
    """Where a skip joins: the upsampled path first, the skip after it, along the channels."""

    def forward(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """[batch, c, h, w] and [batch, k, h, w] to [batch, c + k, h, w]."""
        return torch.cat((upsampled, skip), dim=1)


class Probability(nn.Module):
    """1×1 convolution and a sigmoid, or a softmax over classes, in float32: a probability is not rounded to bfloat16."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 1)
        _glorot(self.convolution)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] to [batch, out_channels, h, w] in [0, 1]."""
        scores = self.convolution(x).float()
        return torch.sigmoid(scores) if scores.shape[1] == 1 else scores.softmax(dim=1)


def removed_skips(depth: int, without: Collection[str]) -> frozenset[Part]:
    """The skips to leave out, checked against those of a U-Net of this depth.

    >>> list(map(str, sorted(removed_skips(4, ["skip2", "skip1"]))))
    ['skip1', 'skip2']
    >>> removed_skips(1, ["skip2"])
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: no skip skip2 in a U-Net of depth 1: expected any of skip1
    """
    if not 1 <= depth <= MAX_DEPTH:
        raise InvalidArgument(f"depth must be 1 to {MAX_DEPTH}, got {depth}")
    every = {str(skip): skip for skip in skips_of_depth(depth)}
    names = {without} if isinstance(without, str) else {*without}
    if unknown := sorted(names - every.keys()):
        raise InvalidArgument(
            f"no skip {', '.join(unknown)} in a U-Net of depth {depth}: expected any of {', '.join(every)}"
        )
    return frozenset(every[name] for name in names)


def check_image_size(image_size: Sequence[int], depth: int) -> None:
    """Refuse an image size that cannot be halved `depth` times, and name the nearest sizes that can.

    >>> check_image_size((128, 128), depth=4)
    >>> check_image_size((100, 128), depth=4)
    Traceback (most recent call last):
    unetscope.base.errors.NetworkError: image size 100x128 cannot be halved 4 times: use 96x128 or 112x128
    """
    step = 2**depth
    if any(side < step or side % step for side in image_size):
        smaller = [max(step, side // step * step) for side in image_size]
        larger = [-(-side // step) * step for side in image_size]
        sizes = dict.fromkeys(f"{height}x{width}" for height, width in (smaller, larger))
        raise NetworkError(
            f"image size {'x'.join(map(str, image_size))} cannot be halved {depth} times: use {' or '.join(sizes)}"
        )


def _describe(depth: int, removed: Collection[Part]) -> tuple[tuple[Layer, ...], tuple[Skip, ...]]:
    """The recorded layers in the order in which they run, and the skips that are not removed, the top one first."""
    layers, skips = [], []
    number = 0
    for level in range(depth + 1):
        for _ in range(2):
            number += 1
            layers.append(Layer(f"{number}", f"layer{number}", level, "bottom" if level == depth else "encoder"))
    for level in reversed(range(depth)):
        number += 1
        up = f"{number}up"
        layers.append(Layer(up, f"up{number}", level, "upsampled"))
        if (skip := Part(SKIP, level + 1)) in removed:
            layers.append(Layer(f"{number}", f"up{number}", level, "upsampled", parts=(up,)))  # no skip joins here
        else:
            source = f"{2 * level + 2}"
            layers.append(Layer(f"{number}", f"merge{number}", level, "merge", parts=(up, source)))
            skips.append(Skip(str(skip), source, up, f"{number}"))
        for _ in range(2):
            number += 1
            layers.append(Layer(f"{number}", f"layer{number}", level, "decoder"))
    layers.append(Layer(f"{number + 1}", f"layer{number + 1}", 0, "output"))
    before = [(), *((layer.label,) for layer in layers)]
    layers = [replace(layer, sources=layer.parts or source) for layer, source in zip(layers, before, strict=False)]
    return tuple(layers), tuple(reversed(skips))


def _check_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise InvalidArgument(f"{name} must be 1 or more, got {count}")


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    _glorot(convolution)
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


def _transposed(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    transposed = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
    _glorot(transposed)
    return transposed


def _glorot(convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Glorot-uniform weights and zero bias, the published code's initialisation."""
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


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
        save_tensors(tensors, beside, {**header, DIGEST: _contents_digest(header, tensors)})
    return Path(path)


def _contents_digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a header and of tensors, by name."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode("ascii"))
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode("ascii"))
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_model(path: str | Path) -> UNet:
    """The network that `unetscope slim` wrote, in evaluation mode. path: of the file, or of the folder that holds it.

    Raises: NetworkError if there is no such file, its bytes are not those that were written, or its weights do not fit the
    network that its header describes.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise NetworkError(f"no network in {path}: expected a file written by unetscope slim")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise NetworkError(f"{path} has no network in its header: expected a file written by unetscope slim")
            arguments = parse_json(header["network"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        digest = header.pop(DIGEST, None)  # files of older versions have none
        if digest is not None and digest != _contents_digest(header, weights):
            raise ValueError("its weights or its header are not those that were written")
        for name in ("width", "in_channels", "out_channels"):
            if not 1 <= arguments[name] <= LARGEST_WIDTH:
                value = f"a width of {arguments[name]}" if name == "width" else f"channels: {arguments[name]}"
                raise NetworkError(f"{path} names {value}: expected 1 to {LARGEST_WIDTH}")
        # Without memory for the weights: a header may describe a network larger than memory, and the file holds them anyway.
        with torch.device("meta"):
            model = UNet(**{name: arguments[name] for name in ARGUMENTS})
        load_weights(model, weights, assign=True)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise NetworkError(f"{path} cannot be read as a network ({first_line(error)})") from None
    return model.eval()
