"""Probes finished by Newton's steps: against independent libraries, and against truths of ReLU channels by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from calibration.laws import rectified, rectified_information
from scipy import optimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from unetscope.estimators import (
    Fit,
    Linear,
    LinearProbe,
    Moments,
    PlaceSample,
    Spectrum,
    cross_validated,
    refined,
    sample_size,
)
from unetscope.estimators.interface import Reading
from unetscope.estimators.newton import Regressions
from unetscope.measure.probe_data import ProbeData, Segmented
from unetscope.measure.probe_inputs import ProbeInputs
from unetscope.measure.probing import probe
from unetscope.measure.selfcheck import Channels
from unetscope.table import Layer

FOLDS = 4


def rectified_sample(
    places: int = 4000, channels: int = 6, pixels: int = 2, classes: int = 2, seed: int = 0
) -> PlaceSample:
    """ReLU channels, and a logistic law of them for each pixel above a place."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(places, channels, generator=generator).relu() * torch.logspace(-1, 1, channels) + 3
    standard = (features - features.mean(dim=0)) / features.std(dim=0)
    logits = torch.einsum("mc,cok->mok", standard, 2 * torch.randn(channels, pixels, classes, generator=generator)) - 1
    labels = torch.multinomial(logits.softmax(dim=2).flatten(0, 1), 1, generator=generator).reshape(places, pixels)
    return PlaceSample(features, labels, torch.arange(places) % FOLDS, classes)


def moments_of(sample: PlaceSample) -> list[Moments]:
    hot = functional.one_hot(sample.labels, sample.classes)[..., :-1].flatten(1).float()
    folds = []
    for fold in range(FOLDS):
        rows = sample.fold == fold
        folds.append(Moments(sample.features.shape[1], hot.shape[1]))
        folds[-1].add(sample.features[rows], hot[rows])
    return folds


def least_squares(sample: PlaceSample) -> tuple[Spectrum, list[Fit], list[Fit]]:
    """The correlations, the fits without each fold, and those on a quarter, half and all of the folds."""
    moments = moments_of(sample)
    strength, spectra = cross_validated(moments)
    without = [
        Fit(tuple(fold for fold in range(FOLDS) if fold != out), spectrum.probe(strength))
        for out, spectrum in enumerate(spectra)
    ]
    shares = [(0,), (0, 1), (0, 1, 2, 3)]
    of_shares = [Spectrum(Moments.joined([moments[fold] for fold in share])) for share in shares]
    fits = [Fit(share, spectrum.probe(strength)) for share, spectrum in zip(shares, of_shares, strict=True)]
    return of_shares[-1], without, fits


def chances(probe: LinearProbe, features: Tensor, pixels: int) -> np.ndarray:
    logits = functional.pad(probe.scores(features).reshape(len(features), pixels, -1), (0, 1))
    return logits.softmax(dim=2).numpy()


# Against independent libraries


@pytest.mark.parametrize("classes", [2, 4])
def test_with_hardly_a_penalty_it_is_the_logistic_regression_of_an_independent_library(classes: int) -> None:
    sample = rectified_sample(classes=classes)
    correlations, _, shares = least_squares(sample)
    standard = ((sample.features - sample.features.mean(dim=0)) / sample.features.std(dim=0)).double().numpy()
    probes, _ = Regressions(sample, correlations).fitted(shares, 1e-8)
    for share, ours in zip(shares, probes, strict=True):
        rows = torch.isin(sample.fold, torch.tensor(share.folds))
        for pixel in range(2):
            theirs = LogisticRegression(C=1e6, max_iter=10_000, tol=1e-8)
            theirs.fit(standard[rows.numpy()], sample.labels[rows, pixel].numpy())
            np.testing.assert_allclose(
                chances(ours, sample.features, 2)[:, pixel], theirs.predict_proba(standard), atol=2e-2
            )


def test_with_a_penalty_it_is_the_least_loss_that_a_general_minimizer_finds() -> None:
    sample, loyalty = rectified_sample(pixels=1), 0.03
    correlations, _, shares = least_squares(sample)
    regressions = Regressions(sample, correlations)
    ours = regressions.fitted(shares, loyalty)[0][-1]
    start = regressions.fitted(shares, 1e6)[0][-1]  # such a penalty leaves the probe where it is, in logits
    x = sample.features.double().numpy()
    hot, mean, spread = (sample.labels[:, 0] == 0).numpy(), x.mean(axis=0), x.std(axis=0)
    x = (x - mean) / spread

    def of(probe: LinearProbe) -> np.ndarray:
        weights = probe.weights[:, 0].double().numpy()
        return np.append(weights * spread, probe.offset.item() + mean @ weights)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits, away = x @ parameters[:-1] + parameters[-1], parameters[:-1] - of(start)[:-1]
        error = (1 / (1 + np.exp(-logits)) - hot) / len(hot)
        value = np.mean(np.logaddexp(0, logits) - hot * logits) + loyalty / 2 * np.sum(away**2)
        return float(value), np.append(x.T @ error + loyalty * away, error.sum())

    theirs = optimize.minimize(loss, of(start), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert loss(of(start))[0] > theirs.fun + 1e-3
    assert loss(of(ours))[0] == pytest.approx(theirs.fun, abs=2e-6)
    np.testing.assert_allclose(of(ours), theirs.x, atol=2e-2)


def test_it_gains_on_least_squares_what_logistic_regression_does() -> None:
    sample = rectified_sample(places=16_000, channels=3, pixels=1)
    found = refined(sample, *least_squares(sample))
    assert found is not None
    x, y = sample.features.numpy(), sample.labels[:, 0].numpy()
    theirs = LogisticRegression(C=1e6, max_iter=10_000).fit(x, y).predict_proba(x)[np.arange(len(y)), y]
    ours = chances(found.shares[-1], sample.features, 1)[np.arange(len(y)), 0, y]
    assert -np.log(ours).mean() == pytest.approx(-np.log(theirs).mean(), abs=1e-4)
    assert 0 < found.optimism < 0.002


# What it must not do


def test_where_unseen_places_gain_nothing_least_squares_stays() -> None:
    sample = rectified_sample(places=600, channels=40)
    labels = torch.randint(2, sample.labels.shape, generator=torch.Generator().manual_seed(1))
    unrelated = PlaceSample(sample.features, labels, sample.fold, 2)
    assert refined(unrelated, *least_squares(unrelated)) is None


def test_a_fit_depends_on_no_label_of_a_fold_that_it_leaves_out() -> None:
    sample = rectified_sample()
    correlations, without, shares = least_squares(sample)
    labels = torch.where((sample.fold == 1)[:, None], 1 - sample.labels, sample.labels)
    spoilt = PlaceSample(sample.features, labels, sample.fold, 2)
    fits = [without[1], shares[0], without[0]]
    ours, theirs = (Regressions(data, correlations).fitted(fits, 1e-3)[0] for data in (sample, spoilt))
    for place, same in enumerate((True, True, False)):
        assert torch.equal(ours[place].weights, theirs[place].weights) == same


@pytest.mark.parametrize("classes", [2, 3])
def test_pixels_without_a_label_count_for_nothing(classes: int) -> None:
    sample = rectified_sample(classes=classes, pixels=1)
    correlations, _, shares = least_squares(sample)
    labels = sample.labels.clone()
    labels[::3] = -1
    kept = torch.arange(len(labels)) % 3 > 0
    some = PlaceSample(sample.features, labels, sample.fold, classes)
    fewer = PlaceSample(sample.features[kept], labels[kept], sample.fold[kept], classes)
    ours, theirs = (Regressions(data, correlations).fitted(shares, 1e-3)[0][-1] for data in (some, fewer))
    torch.testing.assert_close(ours.scores(sample.features), theirs.scores(sample.features), rtol=1e-3, atol=1e-2)


def test_masks_that_are_told_without_error_have_finite_probes() -> None:
    features = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)).relu()
    labels = (3 * features[:, :1] - 2 * features[:, 1:2] > 0.5).long()
    sample = PlaceSample(features, labels, torch.arange(4000) % FOLDS, 2)
    found = refined(sample, *least_squares(sample))
    assert found is not None
    assert all(bool(probe.scores(features).isfinite().all()) for probe in (*found.shares, *found.without_fold))
    assert 0 <= found.optimism < 0.01


# Which places are kept


def test_a_sample_is_bounded() -> None:
    for features in (1, 8, 64, 100, 300, 1024, 4096):
        for outputs in (1, 3, 16, 100, 1000):
            size = sample_size(features, outputs)
            assert size == 0 or 2048 <= size <= 16_384
            assert size * features <= 2**21
            assert (size > 0) == (features * outputs <= 2048 and features <= 1024)


def kept_places(batch_size: int, ignored: int | None = None, sparse: bool = False) -> tuple[Tensor, Tensor]:
    """The images and labels of the places kept of 40 images of 32 × 32."""
    masks = torch.randint(2, (40, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    if ignored is not None:
        masks[:10] = ignored
        masks[10:20, :16] = ignored
    if sparse:
        masks[:, 4:] = 9
    train = Segmented(torch.zeros(40, 1, 32, 32), masks, ignored=ignored)
    data = ProbeData(train, train, classes=2, batch_size=batch_size, seed=0, share=False, device=torch.device("cpu"))
    data.sample((32, 32), 2000)
    parts = []
    for rows in torch.arange(40)[data.fold_of >= 0].split(batch_size):
        data.next_batch()
        sampled = data.targets(rows, (32, 32)).sampled
        assert sampled is not None
        parts.append((sampled.image, sampled.labels[:, 0]))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def test_the_places_kept_are_spread_over_the_images_whatever_the_batches() -> None:
    image, labels = kept_places(1)
    again, labels_again = kept_places(16)
    assert torch.equal(image, again)
    assert torch.equal(labels, labels_again)
    assert image.bincount().tolist() == [50] * 40


def test_the_places_kept_are_as_many_of_an_image_as_it_has_labels() -> None:
    image, labels = kept_places(16, ignored=9)
    counts = image.bincount(minlength=40)
    assert int(labels.min()) == 0
    assert counts[:10].tolist() == [0] * 10
    assert counts[10:20].double().mean() / counts[20:].double().mean() == pytest.approx(0.5, abs=0.04)
    few, _ = kept_places(16, ignored=9, sparse=True)
    assert few.bincount(minlength=40)[20:].tolist() == [100] * 20  # 2000 of the 20 · 128 that have a label


@pytest.mark.parametrize(("width", "kept"), [(60, True), (100, False)])
def test_the_probes_of_a_grid_are_finished_on_the_same_places_or_none(width: int, kept: bool) -> None:
    """A merge that is too wide takes its parts along: what they gain is compared."""
    masks = torch.zeros(8, 32, 32, dtype=torch.uint8)
    masks[:, :16] = 1
    train = Segmented(torch.zeros(8, 1, 32, 32), masks)
    data = ProbeData(train, train, classes=2, batch_size=8, seed=0, share=False, device=torch.device("cpu"))
    layers = (
        Layer("U", "U", shape=(width, 8, 8)),
        Layer("S", "S", shape=(40, 8, 8)),
        Layer("SU", "", role="merge", parts=("U", "S"), shape=(width + 40, 8, 8)),
        Layer("fine", "fine", shape=(1, 32, 32)),
    )
    ProbeInputs(layers, (), Linear(), data)
    rows = torch.arange(8)[data.fold_of >= 0]
    assert (data.targets(rows, (8, 8)).sampled is not None) == kept
    assert data.targets(rows, (32, 32)).sampled is not None


# The whole, against truth

Law = tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
EVEN: Law = (((3.0, -3.0),), (1.0,))
RARE: Law = (((3.0, -3.0),), (4.0,))
CLASSES: Law = (((3.0, -3.0), (-2.0, 3.0)), (0.0, -1.0))


def reading_of(
    law: Law, seed: int, *, train: int = 60, held_out: int = 40, channels: int = 2, side: int = 16, batch_size: int = 16
) -> Reading:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(train + held_out, channels, side, side, generator=generator).relu()
    masks = rectified(*law)(images, seed + 1)
    sets = [Segmented(images[part], masks[part]) for part in (slice(train), slice(train, None))]
    layers = (Layer("1", "1", shape=(channels, side, side)),)
    readings = probe(
        Channels({"1": slice(None)}), *sets, layers, classes=len(law[1]) + 1, batch_size=batch_size, seed=seed
    )
    return readings["1"][0]


@pytest.mark.parametrize(("law", "bits"), [(EVEN, 0.335), (RARE, 0.204), (CLASSES, 0.560)])
def test_relu_channels_are_measured_as_quadrature_says(law: Law, bits: float) -> None:
    truth = rectified_information(*law)
    assert truth / math.log(2) == pytest.approx(bits, abs=5e-4)
    reading = reading_of(law, 0, train=100, held_out=300)
    assert reading.nats == pytest.approx(
        truth, abs=0.006
    )  # least squares falls short by 0.012 of 0.141 nats, where rare
    assert reading.low < truth < reading.high
    assert reading.p == 0.001


def coverage(law: Law, repetitions: int, channels: int = 2, train: int = 60) -> float:
    truth = rectified_information(*law)
    readings = [reading_of(law, seed, channels=channels, train=train) for seed in range(repetitions)]
    assert all(math.isfinite(reading.low) for reading in readings)
    return float(np.mean([reading.low < truth < reading.high for reading in readings]))


@pytest.mark.long
@pytest.mark.parametrize("law", [EVEN, RARE, CLASSES])
def test_intervals_cover_the_truth_of_relu_channels(law: Law) -> None:
    assert coverage(law, 25) >= 0.84


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "train"), [(2, 60), (32, 200)])
@pytest.mark.parametrize("law", [EVEN, RARE, CLASSES])
def test_intervals_cover_the_truth_of_relu_channels_in_nine_to_ten_of_ten_cases(
    law: Law, channels: int, train: int
) -> None:
    assert 0.90 <= coverage(law, 200, channels, train) <= 0.99


def test_the_size_of_a_batch_changes_no_probe_of_relu_channels() -> None:
    one, other = (reading_of(RARE, 0, side=32, batch_size=size) for size in (1, 16))
    assert one.nats == pytest.approx(other.nats, abs=1e-6)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-5)


def rejections(repetitions: int) -> float:
    """Of ReLU channels that have nothing to do with the masks, both with something in common over all images."""
    found = 0
    for seed in range(repetitions):
        generator = torch.Generator().manual_seed(seed)
        common = 2 * torch.randn(8, 8, generator=generator)
        images = (torch.randn(60, 3, 8, 8, generator=generator) + common).relu()
        masks = (torch.rand(60, 8, 8, generator=generator) < torch.sigmoid(common)).to(torch.uint8)
        sets = [Segmented(images[part], masks[part]) for part in (slice(40), slice(40, None))]
        readings = probe(Channels({"1": slice(None)}), *sets, (Layer("1", "1", shape=(3, 8, 8)),), seed=seed)
        found += readings["1"][0].p <= 0.05
    return found / repetitions


@pytest.mark.long
def test_chance_is_rejected_rarely_by_relu_channels() -> None:
    assert rejections(30) <= 0.17


@pytest.mark.slow
def test_chance_is_rejected_at_its_level_by_relu_channels() -> None:
    assert 0.03 <= rejections(300) <= 0.07
