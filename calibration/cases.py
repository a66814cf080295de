"""All cases of the study."""

from __future__ import annotations

from functools import cache

from calibration.case import Case
from calibration.distance_cases import cells_and_clusters, channels, codes, many_dimensions, nulls
from calibration.pixel_cases import merges, pixels, rectified_pixels, unrelated_pixels


@cache
def cases() -> tuple[Case, ...]:
    """All of them, by group."""
    return (
        *channels(),
        *cells_and_clusters(),
        *many_dimensions(),
        *codes(),
        *nulls(),
        *unrelated_pixels(),
        *pixels(),
        *merges(),
        *rectified_pixels(),
    )
