"""What the environment tells a library that trains, before it is imported."""

from __future__ import annotations

import os

from unetscope.base import InvalidArgument

# Read by lightning-fabric and torchmetrics while they are imported or made, and by nobody who could say which was wrong.
NUMBERS = (
    "LOCAL_RANK",
    "RANK",
    "SLURM_PROCID",
    "JSM_NAMESPACE_RANK",
    "SLURM_NTASKS",
    "LT_CLI_USED",
    "DOCTEST_DOWNLOAD_TIMEOUT",
)


def check_environment() -> None:
    """Raises: InvalidArgument, which names it, for a variable of distributed training that is set and is no whole number."""
    for name in NUMBERS:
        try:
            int(os.environ.get(name, "0"))
        except ValueError:
            raise InvalidArgument(
                f"{name}={os.environ[name]} in the environment must be a whole number: unset it, as one process trains"
            ) from None
