"""Training on class maps: loss and Dice against closed forms and slow twins, and what is ignored counts nowhere."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shapes import IGNORED, shapes
from unetscope.base import InvalidArgument
from unetscope.data import SegmentationData, synthetic_nuclei
from unetscope.estimators import BlockLabels, KMeansLabels
from unetscope.measure import Scope
from unetscope.networks import UNet, load_model, save_model
from unetscope.table import EpochRecord, save_epochs
from unetscope.training import Scores, Task, Trainer, TrainingConfig, validation_scores
from unetscope.training.scores import dice_by_class, dice_per_image


def slow_dice(predicted: np.ndarray, truth: np.ndarray, classes: int, ignore: int | None) -> list[float]:
    dice = []
    for label in range(classes):
        p = t = both = 0
        for guess, true in zip(predicted.flat, truth.flat, strict=True):
            if true == ignore:
                continue
            p, t, both = p + (guess == label), t + (true == label), both + (guess == true == label)
        dice.append(2 * both / (p + t) if t else math.nan)
    return dice


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.booleans(), st.integers(0, 10**6))
def test_dice_of_classes_is_that_of_a_loop(classes: int, with_ignore: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ignore = 7 if with_ignore else None
    truth = rng.choice([*range(classes), *([7] if with_ignore else [])], (3, 1, 4, 5)).astype(np.uint8)
    probabilities = torch.from_numpy(rng.random((3, classes, 4, 5)).astype(np.float32))
    dice = dice_by_class(probabilities, torch.from_numpy(truth), ignore)
    for row in range(3):
        expected = slow_dice(probabilities[row].argmax(0).numpy(), truth[row], classes, ignore)
        np.testing.assert_allclose(dice[row].numpy(), expected, rtol=1e-6)


def test_a_class_that_a_mask_lacks_has_no_dice_and_is_not_zero() -> None:
    truth = torch.tensor([[[[0, 0, 1, 1]]], [[[0, 0, 0, 0]]], [[[9, 9, 9, 9]]]])
    likeliest_0 = torch.tensor([0.8, 0.1, 0.1]).reshape(1, 3, 1, 1).expand(3, 3, 1, 4)
    scores = Task(3, 9).scores(likeliest_0, truth)
    np.testing.assert_allclose(
        scores.by_class, [[2 / 3, 0, math.nan], [1, math.nan, math.nan], [math.nan] * 3], rtol=1e-6
    )
    np.testing.assert_allclose(scores.images, [1 / 3, 1, math.nan], rtol=1e-6)
    assert scores.mean == pytest.approx(2 / 3)
    np.testing.assert_allclose(scores.class_means, [5 / 6, 0, math.nan], rtol=1e-6)


@pytest.mark.parametrize("ignore", [None, 9])
@pytest.mark.parametrize("classes", [2, 3, 11])
def test_the_loss_is_the_mean_over_labelled_pixels(classes: int, ignore: int | None) -> None:
    torch.manual_seed(0)
    masks = torch.randint(0, classes, (3, 1, 4, 4), dtype=torch.uint8)
    if ignore is not None:
        ignore = classes + 2
        masks[:, :, 0], masks[2] = ignore, ignore
    logits = torch.randn(3, Task(classes).outputs, 4, 4, requires_grad=True)
    targets = masks[:, 0].long()
    if classes == 2:
        probabilities = logits.sigmoid()
        every = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], (targets == 1).float(), reduction="none")
        expected = every[targets != ignore].mean() if ignore is not None else every.mean()
    else:
        probabilities = logits.softmax(dim=1)
        expected = nn.functional.cross_entropy(logits, targets, ignore_index=-100 if ignore is None else ignore)
    loss = Task(classes, ignore).loss(probabilities, masks)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (ours,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    if ignore is not None:
        assert not ours[:, :, 0].any() and not ours[2].any()


def test_a_batch_without_a_label_has_no_loss_and_no_gradient() -> None:
    probabilities = torch.full((2, 3, 2, 2), 1 / 3, requires_grad=True)
    loss = Task(3, 9).loss(probabilities, torch.full((2, 1, 2, 2), 9, dtype=torch.uint8))
    (gradient,) = torch.autograd.grad(loss, probabilities)
    assert loss.item() == 0 and not gradient.any()


def test_a_confident_mistake_still_has_a_gradient() -> None:
    logits = torch.tensor([40.0, 0.0, 0.0]).reshape(1, 3, 1, 1).requires_grad_()
    Task(3).loss(logits.softmax(1), torch.ones(1, 1, 1, 1, dtype=torch.uint8)).backward()
    assert logits.grad is not None and logits.grad.flatten().tolist() == pytest.approx([1, -1, 0], abs=1e-5)


def test_binary_masks_with_ignored_pixels_score_as_if_these_were_not_there() -> None:
    torch.manual_seed(1)
    probabilities, masks = torch.rand(4, 1, 6, 6), torch.randint(0, 2, (4, 1, 6, 6), dtype=torch.uint8)
    wider, marked = nn.functional.pad(probabilities, (0, 3), value=0.9), nn.functional.pad(masks, (0, 3), value=255)
    torch.testing.assert_close(Task(2, 255).scores(wider, marked).images, dice_per_image(probabilities, masks.float()))
    assert Task(2, 255).loss(wider, marked).item() == pytest.approx(Task().loss(probabilities, masks).item(), rel=1e-6)
    assert Task(2, 255).scores(wider, torch.full_like(marked, 255)).images.isnan().all()


def test_a_network_with_too_few_outputs_is_refused(tmp_path: Path) -> None:
    data = shapes(6)
    trainer = Trainer(UNet(2, depth=1, in_channels=1), data, data, TrainingConfig(epochs=1), tmp_path)
    with pytest.raises(InvalidArgument, match="the network has 1 output channels, masks of 3 classes need 3"):
        trainer.run()
    with pytest.raises(InvalidArgument, match="training and validation masks must have the same classes"):
        Trainer(UNet(2, depth=1), data, replace(data, classes=5), TrainingConfig(epochs=1), tmp_path)


def trained(folder: Path, data: SegmentationData, held_out: SegmentationData) -> tuple[UNet, list[EpochRecord]]:
    torch.manual_seed(0)
    model = UNet(4, depth=1, in_channels=1, out_channels=Task.of(data).outputs)
    config = TrainingConfig(epochs=12, learning_rate=1e-2, batch_size=4, precision="float32")
    records: list[EpochRecord] = []
    Trainer(model, data, held_out, config, folder).run(on_epoch=records.append)
    return model, records


def test_three_classes_are_learnt_and_resumable_numbers_agree(tmp_path: Path) -> None:
    data, held_out = shapes(16), shapes(6, seed=1)
    model, records = trained(tmp_path / "run", data, held_out)
    first, last = records[0], records[-1]
    assert first.validation_dice < 0.5 < 0.8 < last.validation_dice
    assert last.validation_loss < first.validation_loss and 0.5 < last.validation_range <= 1
    assert len(last.dice_per_class) == 3 and len(last.dice_per_image) == 6
    assert math.isnan(last.dice_per_image[-1]) and not any(map(math.isnan, last.dice_per_image[:-1]))
    scores = validation_scores(model, held_out)
    assert scores.mean == pytest.approx(last.validation_dice, abs=1e-6)
    assert scores.class_means == pytest.approx(last.dice_per_class, abs=1e-6)
    # what lies where nothing is labelled changes nothing
    other = replace(held_out, masks=np.where(held_out.masks == IGNORED, 11, held_out.masks).astype(np.uint8), ignore=11)
    assert validation_scores(model, other).mean == scores.mean
    path = save_model(model, tmp_path / "model.safetensors")
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(load_model(path)(images), model.eval()(images))
    assert load_model(path)(images).sum(dim=1).sub(1).abs().max() < 1e-5
    text = save_epochs(records, tmp_path / "epochs.csv").read_text()
    assert text.splitlines()[0].endswith("dice_class_0,dice_class_1,dice_class_2")


# ---- labels of whole masks


def test_labels_of_images_leave_out_what_is_ignored() -> None:
    masks = np.zeros((4, 4, 4), np.uint8)
    masks[1], masks[2, :, :2], masks[3, :, :2] = 1, 2, 2
    hidden = masks.copy()
    hidden[:, 0] = 9
    schemes = (KMeansLabels(k=3, n_init=2), BlockLabels(blocks=2))
    for scheme in schemes:
        whole, part = scheme.labels(masks), scheme.labels(hidden, ignored=9)
        assert len(set(whole)) == len(set(part)) == 3
        assert (whole[2] == whole[3]) and (part[2] == part[3])
    # squared distances of one-hot maps: 2 a pixel between any two classes, 1 to what is ignored
    from unetscope.estimators.labels import _by_class

    hot = _by_class(np.array([[[0]], [[1]], [[2]], [[9]]], np.uint8), 9).reshape(4, -1).astype(int)
    assert [int(((hot[a] - hot[b]) ** 2).sum()) for a, b in ((0, 1), (0, 2), (1, 2), (0, 3), (2, 3))] == [2, 2, 2, 1, 1]


def test_binary_labels_are_as_before() -> None:
    from unetscope.estimators.labels import _by_class

    masks = synthetic_nuclei(4, image_size=16).masks
    np.testing.assert_array_equal(_by_class(masks), masks[:, None])


def test_a_scope_measures_class_maps_of_any_network() -> None:
    data, held_out = shapes(12, side=16), shapes(6, side=16, seed=1)
    foreign = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    scope = Scope(
        foreign, data, layers=["0", "2"], held_out=held_out, labels=[KMeansLabels(k=3, n_init=1)], estimators=[]
    )
    rows = [row for row in scope.measure(0) if row.quantity == "I_V(M→Y)"]
    shares, seen = np.array(data.class_shares), held_out.class_shares
    total = data.labels.size
    smoothed = (shares * total + 1) / (total + 3)
    cross_entropy = -(np.array(seen) * np.log2(smoothed)).sum()
    assert len(rows) == 2
    assert [row.ceiling for row in rows] == pytest.approx([cross_entropy] * 2, rel=1e-6)
    with pytest.raises(
        InvalidArgument, match="held-out masks that ignore 11 do not go with a probe set that ignores 9"
    ):
        Scope(foreign, data, layers=["0"], held_out=replace(held_out, masks=held_out.masks % 3, ignore=11))


def test_means_of_scores_leave_out_nan() -> None:
    scores = Scores(torch.tensor([1.0, math.nan]), torch.tensor([[1.0, math.nan], [0.5, math.nan]]))
    assert scores.mean == 1.0 and scores.class_means[0] == 0.75 and math.isnan(scores.class_means[1])
