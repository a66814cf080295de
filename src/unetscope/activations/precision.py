"""Numeric precision: full float32 for measuring, and whether a device is fast at bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

Setting = TypeVar("Setting")


@contextmanager
def full_float32() -> Iterator[None]:
    """Within the block, multiply float32 in full precision; restore the settings afterwards.

    TF32 and similar formats keep ten bits of a number's fraction: enough for training, not for the difference of two images.

    >>> with full_float32():
    ...     torch.backends.cuda.matmul.fp32_precision
    'ieee'
    """
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
