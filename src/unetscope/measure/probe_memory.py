"""The memory that probes of a family hold at most, known from the shapes of the layers, before any of them is fitted."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unetscope.estimators import Family
from unetscope.measure.probe_data import FOLDS, ProbeData, Segmented
from unetscope.measure.probe_inputs import ProbeInputs, images_at_once
from unetscope.table import Layer, Skip

FLOAT32, FLOAT64 = 4, 8  # bytes
SPECTRA = FOLDS + 3  # that are held while a probe is fitted: on all folds but each, and the workspace of one more
COPIES_OF_A_SAMPLE = 3  # as it was kept, in the order of its images, and turned into the directions of the correlations
COPIES_OF_FEATURES = 3  # parts, joined, and what a convolution reads


def probe_bytes(
    train: Segmented,
    held_out: Segmented,
    layers: Sequence[Layer],
    skips: Sequence[Skip],
    *,
    family: Family,
    classes: int,
    batch_size: int,
) -> int:
    """What `probe` holds at most beside the network's batch: moments and sampled places of all probes, and what the widest
    takes while it is fitted, or while it reads some images at all of their places.

    Arguments as of `probing.probe`.
    """
    nowhere = torch.device("meta")  # nothing is allocated
    data = ProbeData(train, held_out, classes=classes, batch_size=batch_size, seed=0, share=False, device=nowhere)
    inputs = ProbeInputs(layers, skips, family, data)
    probes = list(inputs.probes.values())
    of_probes = [
        (FLOAT64 * probe.width * (probe.width + probe.outputs), FLOAT32 * probe.width * inputs.sampled[probe.grid])
        for probe in probes
    ]
    held = sum(FOLDS * moments + sample for moments, sample in of_probes)
    fitted = max((SPECTRA * moments + COPIES_OF_A_SAMPLE * sample for moments, sample in of_probes), default=0)
    read = max((min(batch_size, images_at_once(probe)) * probe.places * probe.width for probe in probes), default=0)
    return held + max(fitted, COPIES_OF_FEATURES * FLOAT32 * read)
