"""Float32 that is float32 where numbers count, bfloat16 where the processor is made for it. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Multiply float32 as float32, whatever was set before, and set it so again.

    TF32 and its kin keep ten bits of a number's fraction: enough for training, not for the difference of two images.

    >>> with full_float32():
    ...     torch.backends.cuda.matmul.fp32_precision
    'ieee'
    """
    places = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
        torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
    )
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in its own circuits, faster than float32, rather than through float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
