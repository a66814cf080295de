"""Run a network for inference and leave it unchanged: evaluation mode, precision, unwrapping, device and input type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from unetscope.activations.threads import held
from unetscope.base import NetworkError, Shared
from unetscope.data import SegmentationData

Setting = TypeVar("Setting")


def full_float32() -> AbstractContextManager[None]:
    """Within the block, multiply float32 in full precision; restore the settings afterwards, when no thread is in such a block.

    TF32 and similar formats keep ten bits of a number's fraction: enough for training, not for the difference of two images.

    >>> with full_float32():
    ...     torch.backends.cuda.matmul.fp32_precision
    'ieee'
    """
    return _FULL_FLOAT32


@contextmanager
def _set_full_float32() -> Iterator[None]:
    backends: tuple[Any, ...] = (
        torch.backends.cuda.matmul,
        *(getattr(torch.backends.cudnn, kind) for kind in ("conv", "rnn")),
        *(getattr(torch.backends.mkldnn, kind) for kind in ("matmul", "conv", "rnn")),
    )
    precisions = [backend.fp32_precision for backend in backends]
    matmul = _legacy_setting(torch.get_float32_matmul_precision)
    cudnn = _legacy_setting(lambda: torch.backends.cudnn.allow_tf32)
    try:
        if matmul is not None:
            torch.set_float32_matmul_precision("highest")
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = False
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision


_FULL_FLOAT32 = Shared(_set_full_float32)


def _legacy_setting(read: Callable[[], Setting]) -> Setting | None:
    """A setting of torch's older interface; None where torch refuses to read it, because the newer interface was used.

    The two must agree whenever a product is computed, so where the older one can be read, it is set too.
    """
    try:
        return read()
    except RuntimeError:
        return None


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16, rather than emulating it in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def unscaled() -> Iterator[None]:
    """Turn off autocast and inference mode, so that results have the type of their operands whatever mode the caller is in."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, without gradients, autocast or TF32, and restore its state afterwards.

    Restored are the training flag of every module, every buffer, and the random state of the CPU and of the network's device.

    Raises: NetworkError if another thread is measuring the network.

    >>> model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2)).train()
    >>> with eval_mode(model):
    ...     model.training, torch.is_grad_enabled()
    (False, False)
    >>> model.training
    True
    """
    check_initialised(model)
    device = device_of(model)
    with ExitStack() as stack:
        stack.enter_context(held(model))  # before its modes are read, which another thread may have set
        modes = [(module, module.training) for module in model.modules()]
        stack.enter_context(kept_buffers(model))
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(full_float32())
        stack.enter_context(uncompiled())
        try:
            model.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Restore every buffer after the block, whether it was written into or put in the place of another.

    Raises: NetworkError if another thread is measuring the network.
    """
    with held(model):
        buffers = [
            (module, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        try:
            yield
        finally:
            for module, name, buffer, saved in buffers:
                setattr(module, name, buffer)
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)


@contextmanager
def kept_parameters(model: nn.Module) -> Iterator[None]:
    """Restore, after the block, parameters that a network writes into while it trains, as one that normalises its weights.

    Raises: NetworkError if another thread is measuring the network.

    >>> layer = nn.Linear(2, 2)
    >>> with kept_parameters(layer), torch.no_grad():
    ...     kept = layer.weight.clone()
    ...     _ = layer.weight.zero_()
    >>> torch.equal(layer.weight, kept)
    True
    """
    with held(model):
        saved = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, values in saved:
                    if not torch.equal(parameter, values):
                        parameter.copy_(values)


def check_initialised(model: nn.Module) -> None:
    """Raises: NetworkError for a network with lazy modules that have not seen an input yet."""
    for name, module in model.named_modules():
        if any(map(is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False)))):
            raise NetworkError(
                f"{name or type(model).__name__} ({type(module).__name__}) has no weights yet: run the network once on an "
                "example, and give it then"
            )


def uncompiled() -> AbstractContextManager[None]:
    """Within the block, whatever `torch.compile` has compiled runs as it was written: tracing and hooks do not see into it.

    That holds for modules, methods and functions under whatever name the network calls them. What is compiled stays so.
    """
    # whose import takes seconds, and without it nothing is compiled
    return _UNCOMPILED if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def _force_eager() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):
        yield


_UNCOMPILED = Shared(_force_eager)


def unwrap_model(model: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel, AveragedModel and `torch.compile` wrappers.

    >>> unwrap_model(nn.DataParallel(nn.Linear(1, 1)))
    Linear(in_features=1, out_features=1, bias=True)
    """
    inner = getattr(model, "_orig_mod", None)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
        inner = model.module
    return unwrap_model(inner) if isinstance(inner, nn.Module) else model


def device_of(model: nn.Module) -> torch.device:
    """The device of a network's weights; the CPU if it has none."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def as_input(model: nn.Module, batch: Tensor) -> Tensor:
    """The batch on the network's device, in the float type of its weights."""
    weights = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    dtype = next((parameter.dtype for parameter in weights), torch.float32)
    return batch.to(device_of(model), dtype=dtype)


def pixels(data: SegmentationData) -> Real[Tensor, "n channels *sides"]:
    """The stored values of all images; uint16 becomes int32, which torch can index on every device."""
    images = data.images
    return torch.from_numpy(images.astype(np.int32) if images.dtype == np.uint16 else images)


def to_input(batch: Real[Tensor, "b c *sides"], scale: float) -> Float[Tensor, "b c *sides"]:
    """A batch of stored values as float32, integers scaled to [0, 1]; `scale` is `SegmentationData.scale`."""
    return batch.to(torch.float32) * scale
