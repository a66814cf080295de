"""Write a network for programs that do not have this package: ONNX, or a program of `torch.export`."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from unetscope.base import InvalidArgument, MissingDependency, quiet_loggers

Export = Literal["onnx", "torch"]


def check_exports(exports: tuple[Export, ...]) -> None:
    """Raises: InvalidArgument for an unknown kind, MissingDependency without the packages that it takes."""
    for kind in exports:
        if kind not in get_args(Export):
            raise InvalidArgument(f"export {kind!r}: expected {' or '.join(get_args(Export))}")
        if kind == "onnx":
            try:
                import onnx  # noqa: F401
                import onnxscript  # noqa: F401
            except ImportError:
                raise MissingDependency('ONNX needs onnx and onnxscript: pip install "unetscope[onnx]"') from None


def exported(model: nn.Module, folder: Path, kind: Export, shape: tuple[int, ...]) -> Path:
    """The network as ONNX or as an exported program, for any number of images of one size."""
    plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(plain, (torch.rand(2, *shape),), dynamic_shapes=({0: batch},))
    path = folder / ("model.onnx" if kind == "onnx" else "model.pt2")
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        written = Path(beside, path.name)
        if kind == "torch":
            torch.export.save(program, written)
        else:
            # The exporter reports packages that it could use, and warns of itself; neither is the user's to mend.
            with quiet_loggers("torch.onnx", level=logging.ERROR), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                torch.onnx.export(program, f=str(written), external_data=False, dynamo=True, verbose=False)
        written.replace(path)
    return path
