"""Fits of probes: least squares from the moments of folds, Newton's steps from there on kept places, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from unetscope.activations import all_gather, all_reduce
from unetscope.estimators import (
    Calibration,
    Fit,
    HeldOut,
    LinearProbe,
    Moments,
    PlaceSample,
    Spectrum,
    cross_validated,
    refined,
)
from unetscope.measure.probe_data import ProbeData, Share
from unetscope.measure.probe_inputs import ROUNDING, Probe, ProbeInputs

DEAD_LAYER = "the layer is the same at every place of every image"


def fit(inputs: ProbeInputs, data: ProbeData) -> None:
    """Fit every probe on every share of the images, and on all folds but each; a layer that is constant has no probe."""
    for key, probe in list(inputs.probes.items()):
        whole = Moments.joined(probe.folds)
        spread = (whole.scatter.diagonal() / whole.count).clamp(min=0).sqrt()
        if not bool((spread > ROUNDING * whole.features_mean.abs()).any()):
            inputs.reasons[key] = DEAD_LAYER
            del inputs.probes[key]
            continue
        _fit(probe, data)


def _fit(probe: Probe, data: ProbeData) -> None:
    """Logistic regressions where places are kept and tell more by them, else least squares."""
    strength, without_fold = _of_all_but_one(probe.folds)
    shares = []
    for share in Share:  # the spectrum of one at a time: of a wide probe they are large
        spectrum = Spectrum(Moments.joined([probe.folds[fold] for fold in share.value]))
        shares.append(Fit(share.value, spectrum.probe(strength)))
    probe.folds = []  # of a wide probe they are far larger than its fits
    probe.without_fold = [fit.probe for fit in without_fold]
    probe.fitted = {share: fit.probe for share, fit in zip(Share, shares, strict=True)}
    if probe.sample:
        finished = refined(_joined(probe, data), spectrum, without_fold, shares)
        probe.sample = []
        if finished is not None:
            probe.without_fold, probe.optimism = finished.without_fold, finished.optimism
            probe.fitted = dict(zip(Share, finished.shares, strict=True))


def _of_all_but_one(folds: Sequence[Moments]) -> tuple[float, list[Fit]]:
    """The strength of the ridge, and the fits on all folds but each."""
    strength, spectra = cross_validated(folds)
    every = range(len(folds))
    fits = [
        Fit(tuple(fold for fold in every if fold != left_out), spectrum.probe(strength))
        for left_out, spectrum in enumerate(spectra)
    ]
    return strength, fits


def _joined(probe: Probe, data: ProbeData) -> PlaceSample:
    """The kept places in the order of their images, whichever batches or processes they were in."""
    image = torch.cat([sampled.image for _, sampled in probe.sample])
    order = image.argsort(stable=True)
    labels = torch.cat([sampled.labels for _, sampled in probe.sample])[order].long()
    features = torch.cat([features for features, _ in probe.sample])
    fold = data.fold_of[image[order]]
    return PlaceSample(
        features.to(data.device)[order.to(data.device)], labels.to(data.device), fold.to(data.device), data.classes
    )


def calibrate(inputs: ProbeInputs, data: ProbeData) -> None:
    """Calibrate the fits of all shares by the scores of images that they have not seen; hold the held-out masks ready."""
    truths = {grid: data.truth(grid) for grid in dict.fromkeys(probe.grid for probe in inputs.probes.values())}
    for probe in inputs.probes.values():
        for share in Share:
            scores, labels = torch.cat(probe.scores[share]), torch.cat(probe.labels[share])
            probe.calibrations[share] = Calibration.fitted(scores, labels)
            probe.held_out[share] = HeldOut(truths[probe.grid], crossed=share is Share.WHOLE)
        probe.calibrated = LinearProbe.beside([probe.calibrations[share].of(probe.fitted[share]) for share in Share])


def gather_moments(inputs: ProbeInputs) -> None:
    """Give all processes the moments and the kept places of all."""
    for probe in inputs.probes.values():
        for moments in probe.folds:
            moments.gather(all_reduce)
        # one probe at a time, and by the CPU: a pickled tensor comes back on the device that it was on
        own = [(features.cpu(), sampled) for features, sampled in probe.sample]
        probe.sample = [batch for part in all_gather(own) for batch in part]


def gather_scores(inputs: ProbeInputs) -> None:
    """Give all processes the scores of all, in their order."""
    own = [(probe.scores, probe.labels, probe.seen_scores) for probe in inputs.probes.values()]
    for probe, parts in zip(inputs.probes.values(), zip(*all_gather(own), strict=True), strict=True):
        probe.scores = {share: [part for scores, _, _ in parts for part in scores[share]] for share in Share}
        probe.labels = {share: [part for _, labels, _ in parts for part in labels[share]] for share in Share}
        probe.seen_scores = [part for _, _, seen in parts for part in seen]
