"""Float32 that is float32 where numbers count, bfloat16 where the processor is made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch

Setting = TypeVar("Setting")


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 as float32, whatever was set before, and set it so again.

    TF32 and its kin keep ten bits of a number's fraction: enough for training, not for the difference of two images.

    >>> with full_float32():
    ...     torch.backends.cuda.matmul.fp32_precision
    'ieee'
    """
    places: tuple[Any, ...] = (
        torch.backends.cuda.matmul,
        *(getattr(torch.backends.cudnn, kind) for kind in ("conv", "rnn")),
        *(getattr(torch.backends.mkldnn, kind) for kind in ("matmul", "conv", "rnn")),
    )
    before = [place.fp32_precision for place in places]
    matmul = _older(torch.get_float32_matmul_precision)
    cudnn = _older(lambda: torch.backends.cudnn.allow_tf32)
    try:
        if matmul is not None:
            torch.set_float32_matmul_precision("highest")
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = False
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def _older(setting: Callable[[], Setting]) -> Setting | None:
    """A setting of torch's older interface; None where only the newer one was used, since torch then refuses to read it.

    The two have to agree whenever a product runs, so where the older one can be read it is set too.
    """
    try:
        return setting()
    except RuntimeError:
        return None


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in its own circuits, faster than float32, rather than through float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def unscaled() -> Iterator[None]:
    """Without autocast and out of inference mode, whatever the caller is in: numbers are made in the type that they have."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield
