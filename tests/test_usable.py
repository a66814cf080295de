"""Usable information: its parts against independent libraries and loops, the whole against truth known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor, nn

from unetscope.activations.capture import with_shapes
from unetscope.base.errors import InvalidArgument, MeasurementError
from unetscope.data.synthetic import synthetic_nuclei
from unetscope.estimators.families import Convolutional, Family, Linear
from unetscope.estimators.interface import Reading
from unetscope.estimators.labels import BlockLabels
from unetscope.estimators.moments import Moments, blocks_of, ratios
from unetscope.estimators.usable import (
    Calibration,
    HeldOut,
    LinearProbe,
    Truth,
    cross_validated,
    guessed,
    ridge,
    shuffled_masks,
)
from unetscope.measure.probing import Segmented, probe
from unetscope.measure.scope import Compute, Probes, Scope
from unetscope.networks.unet import UNet
from unetscope.table.intervals import cautious, difference, effective_groups, group_values, student
from unetscope.table.records import Estimate, Layer, Skip
from unetscope.training.scores import Task

BIT = math.log(2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Moments


@settings(deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.sampled_from([0.0, 1.0, 1e4]), st.integers(0, 99))
def test_moments_are_those_of_all_batches_together(sizes: list[int], offset: float, seed: int) -> None:
    total = sum(sizes)
    x, y = random(total, 3, seed=seed) + offset, random(total, 2, seed=seed + 1)
    moments = Moments(3, 2)
    for features, targets in zip(x.split(sizes), y.split(sizes), strict=True):
        moments.add(features, targets)
    assert moments.count == total
    if total:
        centred, wanted = x.double() - x.double().mean(dim=0), y.double() - y.double().mean(dim=0)
        tolerance = {"rtol": 1e-4, "atol": 1e-4 * max(1.0, offset / 100)}
        torch.testing.assert_close(moments.features_mean, x.double().mean(dim=0))
        torch.testing.assert_close(moments.scatter, centred.T @ centred, **tolerance)
        torch.testing.assert_close(moments.cross, centred.T @ wanted, **tolerance)


def test_moments_join_in_any_order() -> None:
    x, y = random(30, 4), random(30, 1, seed=1)
    parts = []
    for rows in torch.arange(30).split(7):
        parts.append(Moments(4, 1))
        parts[-1].add(x[rows], y[rows])
    forward, backward = Moments.joined(parts), Moments.joined(reversed(parts))
    torch.testing.assert_close(forward.scatter, backward.scatter)
    torch.testing.assert_close(forward.cross, backward.cross)


def test_a_block_holds_the_pixels_above_its_place() -> None:
    volume = torch.arange(2 * 4 * 6 * 2).reshape(2, 4, 6, 2)
    blocks = blocks_of(volume, (2, 2, 1))
    assert blocks.shape == (8, 12)
    assert blocks[1].tolist() == volume[0, :2, 3:, :].reshape(-1).tolist()
    with pytest.raises(InvalidArgument, match="a layer of 3×3 locations does not lie under a mask of 4×4 pixels"):
        ratios((3, 3), (4, 4))


# The probe


def test_a_ridge_is_that_of_an_independent_library() -> None:
    x = random(200, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0, 1.0]) + 4
    y = x @ random(5, 3, seed=1) + random(200, 3, seed=2)
    moments = Moments(5, 3)
    moments.add(x, y)
    ours = ridge(moments, 0.3)
    standard = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    theirs = Ridge(alpha=0.3 * 200).fit(standard.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(ours.scores(x).numpy(), theirs.predict(standard.double().numpy()), atol=2e-3)


def test_channels_that_are_dead_or_copies_change_no_score() -> None:
    x, y = random(100, 2), random(100, 1, seed=1)
    plain, odd = Moments(2, 1), Moments(4, 1)
    plain.add(x, y)
    more = torch.cat((x, x[:, :1], torch.full((100, 1), 7.0)), dim=1)
    odd.add(more, y)
    torch.testing.assert_close(ridge(plain, 0.0).scores(x), ridge(odd, 0.0).scores(more), rtol=1e-4, atol=1e-5)


def test_the_strength_is_what_refitting_would_choose() -> None:
    x, y = random(48, 20), random(48, 1, seed=1)
    y = y + x[:, :1]
    folds, strengths = torch.arange(48).split(12), (1e-4, 1e-2, 1.0)
    moments = []
    for rows in folds:
        moments.append(Moments(20, 1))
        moments[-1].add(x[rows], y[rows])

    def error(strength: float) -> float:
        total = 0.0
        for left_out, rows in enumerate(folds):
            fitted = ridge(Moments.joined(m for fold, m in enumerate(moments) if fold != left_out), strength)
            total += (fitted.scores(x[rows]) - y[rows]).square().sum().item()
        return total

    assert cross_validated(moments, strengths)[0] == min(strengths, key=error) == 1.0


@pytest.mark.parametrize("classes", [2, 4])
def test_a_calibration_is_the_logistic_regression_of_an_independent_library(classes: int) -> None:
    scores = 3 + 0.1 * random(2000, classes - 1)
    logits = torch.cat((20 * (scores - 3) @ random(classes - 1, classes - 1, seed=1), torch.zeros(2000, 1)), dim=1)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=torch.Generator().manual_seed(2))[:, 0]
    ours = torch.nn.functional.pad(Calibration.fitted(scores, labels).logits(scores), (0, 1)).softmax(dim=1)
    theirs = LogisticRegression(C=1e6, max_iter=10_000, tol=1e-8).fit(10 * (scores.numpy() - 3), labels.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(10 * (scores.numpy() - 3)), atol=5e-3)


def test_scores_that_separate_the_classes_have_a_finite_calibration() -> None:
    scores = torch.linspace(-1, 1, 100)[:, None]
    labels = (scores[:, 0] < 0).long()
    logits = Calibration.fitted(scores, labels).logits(scores)
    assert logits.isfinite().all()
    assert ((logits[:, 0] > 0) == (labels == 0)).all()
    constant = Calibration.fitted(torch.ones(10, 1), torch.tensor([0] * 7 + [1] * 3)).logits(torch.ones(1, 1))
    assert torch.sigmoid(constant).item() == pytest.approx(8 / 12, abs=1e-6)


@pytest.mark.long
def test_an_image_with_one_labelled_pixel_is_measured() -> None:
    """Of a batch of one image, no place that probes are fitted on is labelled."""
    whole = synthetic_nuclei(14, image_size=32)
    masks = whole.masks.copy()
    masks[2] = 255
    masks[2, 0, 0] = 1
    data = replace(whole, masks=masks, ignore=255)
    scope = Scope(
        UNet(2, depth=1), data.subset(range(8)), held_out=data.subset(range(8, 14)), labels=[], estimators=[],
        compute=Compute(largest_batch=1),
    )  # fmt: skip
    assert any(math.isfinite(row.bits) for row in scope.measure(0))


@pytest.mark.parametrize("ignored", [None, 9])
def test_losses_of_every_image_under_every_mask(ignored: int | None) -> None:
    masks = torch.randint(3, (4, 6), generator=torch.Generator().manual_seed(0))
    if ignored is not None:
        masks[0, :2] = masks[2, 5] = ignored
    logits = random(4, 6, 2)
    held_out = HeldOut(Truth(masks, 3, ignored))
    held_out.add(0, logits[:3])
    held_out.add(3, logits[3:])
    logs = torch.nn.functional.pad(logits, (0, 1)).log_softmax(dim=2)
    for image in range(4):
        for mask in range(4):
            valid = masks[mask] != (-1 if ignored is None else ignored)
            expected = -sum(logs[image, place, masks[mask, place]] for place in valid.nonzero()[:, 0])
            assert held_out.crossed[image, mask].item() == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(held_out.own, held_out.crossed.diagonal(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("classes", "ignored"), [(2, None), (3, None), (3, 9), (2, 9)])
def test_the_dice_of_a_probe_is_scored_as_that_of_a_network(classes: int, ignored: int | None) -> None:
    generator = torch.Generator().manual_seed(classes)
    masks = torch.randint(0, classes, (5, 1, 4, 6), generator=generator)
    if ignored is not None:
        masks[torch.rand(masks.shape, generator=generator) < 0.3] = ignored
    masks[0] = 0  # an image that has one class alone
    logits = torch.randn((5, 24, classes - 1), generator=generator)
    held_out = HeldOut(Truth(masks.reshape(5, -1), classes, ignored))
    for first in (0, 3):
        held_out.add(first, logits[first : first + 3][: 5 - first])
    likelihoods = (
        torch.cat([logits, torch.zeros(5, 24, 1)], dim=2).softmax(dim=2).movedim(2, 1).reshape(5, classes, 4, 6)
    )
    outputs = likelihoods if classes > 2 else likelihoods[:, 1:]
    expected = Task(classes, ignored).scores(outputs, masks.to(torch.uint8)).images
    assert held_out.dice is not None
    torch.testing.assert_close(held_out.dice, expected.double(), rtol=1e-6, atol=1e-7)
    assert HeldOut(Truth(masks.reshape(5, -1), classes, ignored), crossed=False).dice is None


@pytest.mark.long
def test_what_a_stream_adds_is_said_in_dice_too() -> None:
    train, test = synthetic_nuclei(40, image_size=16).split(0.3)
    torch.manual_seed(0)
    scope = Scope(UNet(3, depth=1), train, estimators=[], labels=(), held_out=test)
    rows = {(e.quantity, e.layer, e.estimator): e for e in scope.measure(0)}
    up, source, merge = (rows["I_V(M→Y)", layer, "usable_linear"] for layer in ("5up", "2", "5"))
    assert all(0 <= row.dice <= 1 for row in (up, source, merge))
    assert rows["I_V(S→Y|U)", "5", "usable_linear"].dice == pytest.approx(merge.dice - up.dice)
    assert rows["I_V(U→Y|S)", "5", "usable_linear"].dice == pytest.approx(merge.dice - source.dice)
    assert math.isnan(rows["I_V(S;U→Y)", "5", "usable_linear"].dice)
    assert math.isfinite(rows["I_V(S→Y|U,↓S)", "5", "usable_convolutional"].dice)


def test_the_interval_is_students_of_the_mean_where_images_are_of_one_size() -> None:
    gains = np.array([1.0, 2.0, 4.0, 9.0])
    interval = student(group_values(gains, np.full(4, 2.0), range(4)))
    half = 3.1824463 * np.std(gains / 2, ddof=1) / 2
    assert (interval.value, interval.low, interval.high) == pytest.approx((2.0, 2 - half, 2 + half), rel=1e-6)
    assert math.isnan(student([1.0]).high)


def test_the_interval_of_a_ratio_covers_it_where_images_differ_in_size() -> None:
    """Large images gain more a pixel here, so the mean of the images' own ratios would be another number."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        sizes = random.uniform(1, 9, 60)
        interval = student(group_values(sizes**2 * random.gamma(4, 0.25, 60), sizes, range(60)))
        covered += interval.low < (81 + 9 + 1) / 3 / 5 < interval.high  # E[size²] / E[size]
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize("spread", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("images", [20, 50])
def test_the_interval_covers_where_few_images_have_most_labels(images: int, spread: float) -> None:
    """A gain a pixel that varies from image to image, and labelled pixels that have nothing to do with it."""
    random, covered = np.random.default_rng(0), []
    for _ in range(400):
        pixels = np.exp(spread * random.normal(size=images))
        values = group_values(pixels * (1 + random.normal(size=images)), pixels, range(images))
        if (worth := effective_groups(pixels)) >= 5:
            interval = cautious(values, worth)
            covered.append(interval.low < 1 < interval.high)
    assert len(covered) >= 100
    assert 0.9 <= np.mean(covered) <= 0.995


# The whole, against truth


class Channels(nn.Module):
    """A network whose layers are parts of its input's channels, so that a test says what they hold."""

    def __init__(self, **channels: slice) -> None:
        super().__init__()
        for name, part in channels.items():
            self.add_module(name, Part(part))

    def forward(self, images: Tensor) -> Tensor:
        for part in self.children():
            part(images)
        return images


class Part(nn.Module):
    def __init__(self, channels: slice) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        return images[:, self.channels]


def probed(
    images: Tensor,
    masks: Tensor,
    *,
    held_out: int,
    family: Family = Linear(),  # noqa: B008
    classes: int = 2,
    ignored: int | None = None,
    batch_size: int = 16,
    **channels: slice,
) -> dict[str, list[Reading]]:
    """Readings of a network of channels; the last images are held out. Layers U and S have a merge SU."""
    network = Channels(**(channels or {"1": slice(None)}))
    layers = tuple(Layer(name, name) for name in channels or ["1"])
    skips = ()
    if {"U", "S"} <= channels.keys():
        layers += (Layer("SU", "", role="merge", parts=("U", "S")),)
        skips = (Skip("skip1", "S", "U", "SU"),)
    train = Segmented(images[:-held_out], masks[:-held_out], ignored=ignored)
    test = Segmented(images[-held_out:], masks[-held_out:], ignored=ignored)
    layers = with_shapes(network, layers, images[:1])
    return probe(network, train, test, layers, skips, family=family, classes=classes, batch_size=batch_size)


def bits_of(readings: list[Reading], quantity: str = "I_V(M→Y)") -> Reading:
    (found,) = (reading for reading in readings if reading.quantity == quantity)
    return found


def logistic_masks(logits: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(logits.shape, generator=generator) < torch.sigmoid(logits)).to(torch.uint8)


def logistic_truth(slope: float, offset: float) -> float:
    """H(Y) - H(Y|x) in nats for P(Y=1|x) = sigmoid(slope x + offset), x standard normal, by quadrature."""
    nodes, weights = hermegauss(80)
    p = 1 / (1 + np.exp(-(slope * nodes + offset)))
    entropy = lambda q: -(q * np.log(q) + (1 - q) * np.log1p(-q))  # noqa: E731
    weights = weights / weights.sum()
    return float(entropy(weights @ p) - weights @ entropy(p))


def logistic_case(seed: int, slope: float = 2.0, offset: float = -1.0, n: int = 60) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 2, 8, 8, generator=generator)
    return images, logistic_masks(slope * images[:, 0] + offset, generator)


def test_a_logistic_channel_is_measured_as_quadrature_says() -> None:
    images, masks = logistic_case(0, n=600)
    reading = bits_of(probed(images, masks, held_out=200)["1"])
    truth = logistic_truth(2.0, -1.0)
    assert reading.nats == pytest.approx(truth, abs=0.01)
    assert reading.low < truth < reading.high
    assert reading.extrapolated == pytest.approx(truth, abs=0.01)
    assert reading.train == pytest.approx(truth, abs=0.02)
    assert reading.p == 0.001
    assert reading.null_mean < reading.null_high < 0


def coverage(repetitions: int) -> float:
    truth = logistic_truth(2.0, -1.0)
    readings = (bits_of(probed(*logistic_case(seed), held_out=20)["1"]) for seed in range(repetitions))
    return float(np.mean([reading.low < truth < reading.high for reading in readings]))


@pytest.mark.long
def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    assert coverage(40) >= 0.85


@pytest.mark.slow
def test_intervals_cover_in_nine_to_ten_of_ten_cases() -> None:
    assert 0.90 <= coverage(200) <= 0.99


def rejections(repetitions: int) -> float:
    """Of a layer that has nothing to do with the masks, which have something in common with each other."""
    found = 0
    for seed in range(repetitions):
        generator = torch.Generator().manual_seed(seed)
        common = 2 * torch.randn(8, 8, generator=generator)
        masks = logistic_masks(common.expand(60, 8, 8), generator)
        images = torch.randn(60, 3, 8, 8, generator=generator) + common
        found += bits_of(probed(images, masks, held_out=20)["1"]).p <= 0.05
    return found / repetitions


@pytest.mark.long
def test_chance_is_rejected_rarely() -> None:
    assert rejections(40) <= 0.15


@pytest.mark.slow
def test_chance_is_rejected_at_its_level() -> None:
    assert 0.03 <= rejections(300) <= 0.07


def test_a_coarse_layer_tells_every_pixel_of_its_blocks() -> None:
    """Each channel of a layer at a quarter of the side is one of the 16 pixels above it."""
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(80, 16, 16, generator=generator) < 0.3).to(torch.uint8)
    images = blocks_of(masks, (4, 4)).reshape(80, 4, 4, 16).permute(0, 3, 1, 2).float()
    reading = bits_of(probed(images, masks, held_out=20)["1"])
    assert reading.nats == pytest.approx(reading.ceiling, rel=0.01)
    assert reading.ceiling == pytest.approx(-(0.3 * math.log(0.3) + 0.7 * math.log(0.7)), abs=0.02)


def planted(join: Callable[[Tensor, Tensor], Tensor], family: Family = Linear()) -> dict[str, Reading]:  # noqa: B008
    """A bit in each of S and U at every pixel, and a mask made of both."""
    generator = torch.Generator().manual_seed(0)
    s, u = (torch.rand(2, 100, 16, 16, generator=generator) < 0.5).to(torch.uint8)
    masks = join(s, u)
    noise = 0.01 * torch.randn(100, 2, 16, 16, generator=generator)
    images = torch.stack((u, s), dim=1) + noise
    readings = probed(images, masks, held_out=30, family=family, U=slice(0, 1), S=slice(1, 2))["SU"]
    return {reading.quantity: reading for reading in readings}


def test_a_skip_that_alone_knows_the_mask_adds_all_of_it() -> None:
    found = planted(lambda s, u: s)
    assert found["I_V(S→Y|U)"].nats == pytest.approx(BIT, rel=0.02)
    assert found["I_V(U→Y|S)"].nats == pytest.approx(0, abs=1e-3)
    assert found["I_V(S;U→Y)"].nats == pytest.approx(0, abs=1e-3)


def test_what_a_skip_repeats_it_does_not_add() -> None:
    generator = torch.Generator().manual_seed(0)
    images, masks = logistic_case(0, n=200)
    images = torch.cat((images, 3 * images[:, :1] + 1 + 1e-4 * torch.randn(200, 1, 8, 8, generator=generator)), dim=1)
    readings = probed(images, masks, held_out=60, U=slice(0, 2), S=slice(2, 3))["SU"]
    found = {reading.quantity: reading.nats for reading in readings}
    assert found["I_V(S→Y|U)"] == pytest.approx(0, abs=2e-3)
    assert found["I_V(U→Y|S)"] == pytest.approx(0, abs=2e-3)
    assert found["I_V(S;U→Y)"] == pytest.approx(logistic_truth(2.0, -1.0), abs=0.02)


def test_linear_probes_do_not_see_an_exclusive_or() -> None:
    """Stated, so that nobody relies on it: a probe of this family finds nothing in either, nor in both."""
    found = planted(lambda s, u: s ^ u)
    assert [abs(reading.nats) < 1e-3 for reading in found.values()] == [True] * 4


@pytest.mark.long
def test_convolutional_probes_find_an_exclusive_or_in_both_and_in_neither() -> None:
    found = planted(lambda s, u: s ^ u, Convolutional())
    for quantity in ("I_V(S→Y|U)", "I_V(U→Y|S)"):
        assert found[quantity].nats == pytest.approx(BIT, rel=0.05)
        assert found[quantity].low <= found[quantity].nats <= found[quantity].high
        assert found[quantity].p == 0.001
    assert found["I_V(S;U→Y)"].nats == pytest.approx(-BIT, rel=0.05)  # what is in neither, but in both together


def test_convolutional_probes_see_the_neighbours_of_a_place() -> None:
    """The mask is what the pixel to the left holds: no probe of one place knows it, one of 3×3 does."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(80, 1, 16, 16, generator=generator)
    masks = (images[:, 0].roll(1, dims=2) > 0).to(torch.uint8)
    linear, convolutional = (
        bits_of(probed(images, masks, held_out=20, family=family)["1"]) for family in (Linear(), Convolutional())
    )
    assert abs(linear.nats) < 0.01
    assert convolutional.nats > 0.5 * BIT
    assert convolutional.estimator == "usable_convolutional"


def test_convolutional_probes_of_the_same_seed_are_the_same_and_scale_matters_little() -> None:
    images, masks = logistic_case(0, n=120)
    first, again = (bits_of(probed(images, masks, held_out=40, family=Convolutional())["1"]) for _ in range(2))
    assert first == again
    scaled = images * torch.tensor([1e3, 1e-2])[:, None, None] + 5
    assert bits_of(probed(scaled, masks, held_out=40, family=Convolutional())["1"]).nats == pytest.approx(
        first.nats, abs=0.01
    )
    assert first.nats == pytest.approx(logistic_truth(2.0, -1.0), abs=0.03)


def test_a_convolutional_probe_of_a_merge_reads_what_it_reads_of_the_parts() -> None:
    family = Convolutional(units=6)
    up, skip = family.reader(), family.reader()
    merge = family.reader([(up, 2), (skip, 3)])
    both = random(4, 5, 4, 4)
    read = merge.features(both)
    assert read.shape == (4 * 16, merge.width(5)) == (64, 5 + 6 + 6 + 6)
    torch.testing.assert_close(read[:, :5], both.movedim(1, -1).reshape(-1, 5))
    torch.testing.assert_close(read[:, 5:11], up.features(both[:, :2])[:, 2:])
    torch.testing.assert_close(read[:, 11:17], skip.features(both[:, 2:])[:, 3:])


def gains_of_nothing(repetitions: int) -> float:
    """How often a skip of noise is said to add something to a path that tells the mask in part."""
    found = 0
    for seed in range(repetitions):
        images, masks = logistic_case(seed)
        readings = probed(images, masks, held_out=20, U=slice(0, 1), S=slice(1, 2))["SU"]
        found += bits_of(readings, "I_V(S→Y|U)").p <= 0.05
    return found / repetitions


@pytest.mark.long
def test_a_skip_of_noise_is_rarely_said_to_add_something() -> None:
    assert gains_of_nothing(40) <= 0.15


def test_several_classes_and_pixels_to_ignore() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(120, 3, 8, 8, generator=generator)
    masks = torch.multinomial(logits.softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, 3), 1, generator=generator)
    masks = masks.reshape(120, 8, 8).to(torch.uint8)
    truth = (logits.log_softmax(dim=1).exp() * logits.log_softmax(dim=1)).sum(dim=1).mean() + math.log(3)
    whole = bits_of(probed(logits, masks, held_out=40, classes=3)["1"])
    assert whole.nats == pytest.approx(truth.item(), abs=0.03)
    spoilt = masks.clone()
    spoilt[:, ::2, ::2] = 255
    partly = bits_of(probed(logits, spoilt, held_out=40, classes=3, ignored=255)["1"])
    assert partly.nats == pytest.approx(truth.item(), abs=0.05)


def test_probes_of_a_network_are_those_of_logistic_regression() -> None:
    """At full resolution the family is logistic regression on the channels: a library that searches finds hardly more."""
    torch.manual_seed(0)
    data = synthetic_nuclei(48, image_size=32)
    train, test = data.split(0.25)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
    scope = Scope(network, train, layers=["1"], labels=[], held_out=test)
    (ours,) = (estimate for estimate in scope.measure(0) if estimate.quantity == "I_V(M→Y)")
    with torch.no_grad():
        x, x_test = (network(torch.from_numpy(d.images) * d.scale).movedim(1, -1).reshape(-1, 6) for d in (train, test))
    y, y_test = (torch.from_numpy(d.masks).reshape(-1).long() for d in (train, test))
    theirs = LogisticRegression(C=1e4, max_iter=10_000).fit(x.numpy(), y.numpy())
    loss = -np.log(theirs.predict_proba(x_test.numpy())[np.arange(len(y_test)), y_test.numpy()]).mean()
    p = y.float().mean().item()
    guess = -np.log([1 - p, p])[y_test.numpy()].mean()
    assert ours.bits == pytest.approx((guess - loss) / BIT, abs=0.02)
    assert ours.ceiling == pytest.approx(guess / BIT, abs=1e-4)
    assert (ours.n, ours.labels, ours.d) == (len(test), "pixels", 6 * 32 * 32)


@pytest.mark.long
def test_measuring_a_network_adds_every_layer_and_merge_and_repeats_itself() -> None:
    data = synthetic_nuclei(24, image_size=32)
    train, test = data.split(0.25)
    torch.manual_seed(0)
    scope = Scope(UNet(3, depth=2), train, labels=[BlockLabels()], held_out=test)
    told: list[tuple[int, int]] = []
    first = [e for e in scope.measure(0, on_batch=lambda *batch: told.append(batch)) if e.estimator == "usable_linear"]
    assert len(first) == len(scope.layers) + 3 * len(scope.skips)
    assert told[-1][0] == told[-1][1]
    again = [e for e in scope.measure(0) if e.estimator == "usable_linear"]
    assert [e.bits for e in first] == [e.bits for e in again]
    sure = [e for e in first if not e.reason]
    assert len(sure) >= 8
    for e in sure:
        assert e.low <= e.bits <= e.high
        assert np.mean(e.per_image) == pytest.approx(e.bits)
    assert all(e.reason.startswith("out of domain: 18 training images are too few") for e in first if e.reason)
    by_quantity = {(e.quantity, e.layer): e.bits for e in first}
    up, merge, gain = (by_quantity[of] for of in (("I_V(M→Y)", "7up"), ("I_V(M→Y)", "7"), ("I_V(S→Y|U)", "7")))
    assert merge - up == pytest.approx(gain, abs=1e-9)


@pytest.mark.long
def test_merges_are_probed_at_the_epochs_that_are_named() -> None:
    train, test = synthetic_nuclei(24, image_size=16).split(0.25)
    probes = Probes(layers=(), merges=(Convolutional(units=4),), merge_epochs=(2,))
    scope = Scope(UNet(2, depth=1), train, estimators=[], labels=(), held_out=test, probes=probes)
    assert [len(scope.measure(epoch)) for epoch in (1, 2, 3)] == [0, 4, 0]
    assert [scope.probes_merges_at(epoch) for epoch in (1, 2, 3)] == [False, True, False]


@pytest.mark.long
def test_some_layers_of_a_network_are_measured_without_its_skips() -> None:
    train, test = synthetic_nuclei(24, image_size=32).split(0.25)
    model = UNet(3, depth=2)
    wanted = [layer for layer in model.layers if layer.label in ("2", "4", "10up", "10")]
    rows = Scope(model, train, layers=wanted, labels=[BlockLabels()], held_out=test).measure(0)
    usable = [(row.layer, row.quantity) for row in rows if row.estimator == "usable_linear"]
    assert {layer for layer, _ in usable} == {"2", "4", "10up", "10"}
    assert {layer for layer, quantity in usable if quantity != "I_V(M→Y)"} == {"10"}  # skip1 is whole, skip2 is not


def test_only_estimates_of_the_same_images_have_a_difference() -> None:
    row = Estimate(0, "1", "I_V(M→Y)", "usable_linear", 0.0, "pixels", 0.2, 0, 1, 1, False, 2, 9, per_image=(0.1, 0.3))
    with pytest.raises(InvalidArgument, match="2 and 3 images: a paired difference needs the same ones"):
        difference(row, replace(row, per_image=(0.1, 0.2, 0.3)))
    bare = replace(row, per_image=(), reason="the layer is the same")
    with pytest.raises(
        InvalidArgument, match="layer 1 at epoch 0 by usable_linear has no values by image: the layer is the"
    ):
        difference(row, bare)


# What cannot be measured says why


def test_a_layer_that_says_nothing_has_a_reason() -> None:
    images, masks = logistic_case(0)
    images[:, 1] = 3.0
    readings = probed(images, masks, held_out=20, U=slice(0, 1), S=slice(1, 2))
    assert math.isnan(bits_of(readings["S"]).nats)
    for reading in (*readings["S"], *readings["SU"][1:]):
        assert reading.reason == "the layer is the same at every place of every image"
    assert bits_of(readings["SU"]).nats == pytest.approx(bits_of(readings["U"]).nats, abs=1e-3)


def test_masks_of_one_class_have_a_reason() -> None:
    images, masks = logistic_case(0)
    reading = bits_of(probed(images, torch.zeros_like(masks), held_out=20)["1"])
    assert math.isnan(reading.nats)
    assert reading.reason == "every pixel of the training masks has the same label"


def test_too_few_images_have_a_reason() -> None:
    images, masks = logistic_case(0)
    reading = bits_of(probed(images[:22], masks[:22], held_out=20)["1"])
    assert math.isnan(reading.nats)
    assert reading.reason == "2 training images with labels: a probe needs at least 4"
    for judged in (1, 4):
        few = bits_of(probed(images, masks, held_out=judged)["1"])
        assert (math.isnan(few.low), few.per_image) == (True, ())
        assert few.reason == f"out of domain: {judged} held-out images with labels are too few for an interval"
    assert bits_of(probed(images, masks, held_out=1)["1"]).p == 1.0


def test_a_calibration_goes_where_the_probe_is() -> None:
    calibration = Calibration(torch.ones(1, 1), torch.zeros(1))
    there = calibration.of(LinearProbe(torch.empty(3, 4, device="meta"), torch.empty(4, device="meta")))
    assert (there.weights.device.type, there.offset.device.type) == ("meta", "meta")


@pytest.mark.parametrize("seed", range(4))
def test_two_labelled_pixels_an_image_are_enough_or_said_to_be_too_few(seed: int) -> None:
    images = random(24, 2, 128, 128, seed=seed)
    masks = torch.full((24, 128, 128), 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for image, mask in zip(images, masks, strict=True):
        at = torch.randint(128, (2, 2), generator=generator)
        mask[at[0], at[1]] = (image[0, at[0], at[1]] > 0).to(torch.uint8)
    reading = bits_of(probed(images, masks, held_out=8, ignored=255)["1"])
    assert math.isfinite(reading.nats)
    assert math.isfinite(reading.low) != bool(reading.reason)


def test_the_size_of_a_batch_changes_no_linear_probe() -> None:
    images, masks = logistic_case(0)
    one, other = (bits_of(probed(images, masks, held_out=20, batch_size=size)["1"]) for size in (1, 16))
    assert one.nats == pytest.approx(other.nats, abs=1e-6)
    assert one.train == pytest.approx(other.train, abs=1e-6)


def test_images_without_a_label_are_no_images() -> None:
    """Neither for the folds, nor for the interval: the same probe and the same values as without them."""
    images, masks = logistic_case(0)
    spoilt = masks.clone()
    spoilt[[2, 9, 17, 45, 51]] = 255  # three to train on, two held out
    kept = [image for image in range(len(images)) if (spoilt[image] != 255).any()]
    with_them = bits_of(probed(images, spoilt, held_out=20, ignored=255)["1"])
    without = bits_of(probed(images[kept], masks[kept], held_out=18)["1"])
    assert len(with_them.per_image) == 18
    assert (with_them.nats, with_them.low, with_them.high) == pytest.approx(
        (without.nats, without.low, without.high), abs=0.01
    )
    spoilt[3:40] = 255
    assert bits_of(probed(images, spoilt, held_out=20, ignored=255)["1"]).reason == (
        "2 training images with labels: a probe needs at least 4"
    )


def test_a_class_that_no_training_mask_has_is_out_of_domain() -> None:
    images, masks = logistic_case(0)
    masks[45, 0] = 3
    reading = bits_of(probed(images, masks, held_out=20, classes=4)["1"])
    assert reading.reason == "out of domain: held-out masks have class 3, which no training mask has"
    assert (math.isnan(reading.low), reading.per_image) == (True, ())


def test_a_probe_of_many_channels_and_few_images_is_out_of_domain() -> None:
    """64 channels that say nothing cost what a few images cannot pay; the interval would miss the truth."""
    images, masks = logistic_case(0)
    noisy = torch.cat((images, random(len(images), 64, *images.shape[2:], seed=5)), dim=1)
    reading = bits_of(probed(noisy[:28], masks[:28], held_out=20)["1"])
    assert reading.reason.startswith(
        "out of domain: 8 training images are too few to tell; with ever more of them it goes"
    )
    assert reading.reason.endswith("bits higher")
    assert math.isnan(reading.low)


def test_a_layer_that_does_not_lie_under_the_mask_has_a_reason() -> None:
    images, masks = logistic_case(0)
    reading = bits_of(probed(images[..., :7], masks, held_out=20)["1"])
    assert reading.reason.startswith("a layer of 8×7 locations does not lie under a mask of 8×8 pixels")


def with_nan(images: Tensor, image: int) -> Tensor:
    spoilt = images.clone()
    spoilt[image, 0, 3, 3] = math.nan
    return spoilt


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda images, masks: (images, masks[1:]), "59 training masks for 60 images|39 training masks for 40 images"),
        (lambda images, masks: (images, masks + 1), "the training masks have labels 1 to 2: expected 0 to 1"),
        (lambda images, masks: (images * math.nan, masks), "layer 1: activations are not finite"),
        (lambda images, masks: (with_nan(images, -1), masks), "layer 1: activations are not finite"),  # held out only
    ],
)
def test_wrong_input_is_named(spoil: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], text: str) -> None:
    images, masks = spoil(*logistic_case(0))
    with pytest.raises((InvalidArgument, MeasurementError), match=text):
        probed(images, masks, held_out=20)


def test_a_class_cannot_be_ignored() -> None:
    with pytest.raises(InvalidArgument, match="ignored pixels have label 0, which is that of a class: 0 to 1"):
        probed(*logistic_case(0), held_out=20, ignored=0)


def test_held_out_images_of_another_size_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"held-out images of 3 channels, \(16, 16\) pixels do not go with"):
        Scope(
            UNet(1, depth=1), synthetic_nuclei(4, image_size=32), labels=[], held_out=synthetic_nuclei(4, image_size=16)
        )


def test_the_guess_is_the_cross_entropy_of_the_frequencies() -> None:
    guess = guessed(torch.tensor([[0, 0, 1], [1, 1, 9]]), torch.tensor([0.25, 0.75]))
    assert guess.tolist() == pytest.approx([-2 * math.log(0.25) - math.log(0.75), -2 * math.log(0.75)], rel=1e-6)


def test_shuffling_leaves_what_all_masks_have_in_common() -> None:
    held_out = HeldOut(Truth(torch.tensor([[1, 0]] * 5), 2))
    held_out.add(0, torch.tensor([[[-2.0], [2.0]]] * 5))
    guess = guessed(torch.tensor([[1, 0]] * 5), torch.tensor([0.5, 0.5]))
    null = shuffled_masks(guess, held_out)
    assert null.p == 1.0
    assert null.nats == pytest.approx(math.log(2) - math.log1p(math.exp(-2)), rel=1e-5)


def test_a_layer_of_many_places_is_fitted_on_some_of_them() -> None:
    """16 384 places an image, of which 1024 are fitted on; NaN at any of them is found all the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(24, 1, 128, 128, generator=generator)
    masks = logistic_masks(2 * images[:, 0] - 1, generator)
    reading = bits_of(probed(images, masks, held_out=8)["1"])
    assert reading.nats == pytest.approx(logistic_truth(2.0, -1.0), abs=0.01)
    images[3, 0, 77, 5] = math.nan
    with pytest.raises(MeasurementError, match="layer 1: activations are not finite"):
        probed(images, masks, held_out=8)


@pytest.mark.long
def test_an_exclusive_or_is_found_among_many_quiet_channels() -> None:
    """A loud bit in one of 20 channels of each stream: a unit of many channels in their own spread would not hear it."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.rand(2, 120, 32, 32, generator=generator) < 0.5
    images = 0.1 * torch.randn(120, 40, 32, 32, generator=generator)
    images[:, 0] += bits[0]
    images[:, 20] += bits[1]
    masks = (bits[0] ^ bits[1]).to(torch.uint8)
    parts = {"U": slice(0, 20), "S": slice(20, 40)}
    readings = probed(images, masks, held_out=60, family=Convolutional(), **parts)["SU"]
    assert bits_of(readings, "I_V(S→Y|U)").nats / BIT > 0.9
    assert bits_of(readings, "I_V(S;U→Y)").nats / BIT < -0.9


@pytest.mark.long
def test_more_units_are_not_more_information() -> None:
    """A path of noise beside a skip whose neighbours tell the mask adds nothing, though the merge has more units."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(120, 3, 16, 16, generator=generator)
    masks = ((images[:, 1] + images[:, 1].roll(1, dims=2)) * images[:, 2] > 0).to(torch.uint8)
    readings = probed(images, masks, held_out=40, family=Convolutional(32), U=slice(0, 1), S=slice(1, 3))["SU"]
    assert bits_of(readings, "I_V(S→Y|U)").nats > 0.15
    adds = bits_of(readings, "I_V(U→Y|S)")
    assert adds.nats <= 0.005


def folded_away(images: Tensor) -> Tensor:
    """The first channel is noise, the second one value for every 2×2 places."""
    coarse = images[:, 1:, ::2, ::2].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return torch.cat((images[:, :1], coarse), dim=1)


@pytest.mark.long
def test_a_skip_is_worth_what_pooling_loses_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((500, 2, 16, 16), generator=generator)
    fine = (images[:, 1] > 0).to(torch.uint8)
    parts = {"U": slice(0, 1), "S": slice(1, 2)}
    lost = probed(images, fine, held_out=100, family=Convolutional(), **parts)["SU"]
    alone = bits_of(lost, "I_V(S→Y|U)").nats
    # Pooling keeps the largest of four, t of which lie below it. If it is dark all are; else it is bright, and each of the
    # others with a chance of (t - 1/2) / t.
    t = np.linspace(0.5, 1, 2001)
    left = np.trapezoid(4 * t**3 * binary_entropy(0.25 + 0.75 * (t - 0.5) / t), t)
    truth = alone - (math.log(2) - left)
    assert (
        0.85 * truth < bits_of(lost, "I_V(S→Y|U,↓S)").nats < truth + 0.02
    )  # signs of four values are harder to read than one
    coarse = folded_away(images)
    whole = probed(coarse, (coarse[:, 1] > 0).to(torch.uint8), held_out=100, family=Convolutional(), **parts)["SU"]
    assert bits_of(whole, "I_V(S→Y|U)").nats > 0.5
    assert bits_of(whole, "I_V(S→Y|U,↓S)").nats == pytest.approx(0, abs=0.02)


@pytest.mark.long
@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_of_a_wide_skip_the_strongest_directions_are_read(spread: float) -> None:
    """96 channels that say much the same, as those of wide layers do; quiet ones count as much as loud ones."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((160, 8, 16, 16), generator=generator)
    mixed = torch.einsum("oc,nchw->nohw", torch.randn((96, 8), generator=generator), hidden)
    images = spread * torch.cat((torch.randn((160, 1, 16, 16), generator=generator), mixed), dim=1)
    fine = (hidden[:, 0] > 0).to(torch.uint8)
    wide = probed(images, fine, held_out=60, family=Convolutional(), U=slice(0, 1), S=slice(1, 97))["SU"]
    narrow = probed(images[:, :61], fine, held_out=60, family=Convolutional(), U=slice(0, 1), S=slice(1, 61))["SU"]
    told = bits_of(narrow, "I_V(S→Y|U,↓S)").nats
    assert told > 0.1
    assert bits_of(wide, "I_V(S→Y|U,↓S)").nats == pytest.approx(told, rel=0.1)


def binary_entropy(share: np.ndarray) -> np.ndarray:
    return -share * np.log(share) - (1 - share) * np.log(1 - share)


def test_a_dead_skip_has_its_reason_and_stops_nothing() -> None:
    images, masks = logistic_case(0, n=40)
    images[:, 1] = 0.0
    readings = probed(images, masks, held_out=10, family=Convolutional(16), U=slice(0, 1), S=slice(1, 2))
    assert bits_of(readings["S"]).reason == "the layer is the same at every place of every image"
    assert bits_of(readings["SU"], "I_V(S→Y|U,↓S)").nats == pytest.approx(0, abs=0.05)
    assert math.isfinite(bits_of(readings["U"]).nats)
