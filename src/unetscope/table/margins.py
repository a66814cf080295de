"""The margin below which a loss counts as none. The command checks it before anything heavy is imported."""

from __future__ import annotations

from unetscope.base import InvalidArgument


def check_margin(margin: float, name: str = "margin") -> None:
    """Raises: InvalidArgument, which calls the margin by this name, unless it is between 0 and 1.

    >>> check_margin(float("nan"), "dice_margin")
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: dice_margin must be between 0 and 1, got nan
    """
    if not 0 < margin < 1:
        raise InvalidArgument(f"{name} must be between 0 and 1, got {margin}")
