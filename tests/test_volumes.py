"""Volumes, several classes, and data sets that others hold."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

import unetscope as us
from unetscope.base import printable
from unetscope.base.errors import DataError, InvalidArgument, MissingDependency
from unetscope.data import from_dataset, load_nifti, load_nnunet
from unetscope.estimators.labels import BlockLabels, KMeansLabels
from unetscope.table import Quantity

nibabel = pytest.importorskip("nibabel", reason="nibabel is an extra")


def volumes(n: int = 8, side: int = 8, classes: int = 3, channels: int = 2, seed: int = 0) -> us.SegmentationData:
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, classes, (n, 2, 2, 2), dtype=np.uint8).repeat(side // 2, 1).repeat(side // 2, 2)
    masks = masks.repeat(side // 2, 3)
    images = (masks[:, None] + rng.normal(0, 0.1, (n, channels, side, side, side))).astype(np.float32)
    return us.SegmentationData(images, masks, tuple(map(str, range(n))), "test", classes)


class Small3d(nn.Module):
    def __init__(self, channels: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(channels, 4, 3, padding=1), nn.Conv3d(4, 8, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose3d(8, 4, 2, 2), nn.Conv3d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.a(x))
        return self.head(torch.cat((self.up(torch.relu(self.b(a))), a), 1))


@pytest.mark.long
@pytest.mark.parametrize("channels", [1, 5])
def test_volumes_of_several_classes_are_measured(channels: int) -> None:
    torch.manual_seed(0)
    data = volumes(16, channels=channels)
    train, held_out = data.split(0.4)
    schemes, probes = (
        [KMeansLabels(4), BlockLabels(2, threshold=0)],
        [us.estimators.Linear(), us.estimators.Convolutional()],
    )
    scope = us.Scope(Small3d(channels), train, held_out=held_out, labels=schemes, probes=probes)
    estimates = scope.measure(0)
    usable = {e.layer: e for e in estimates if e.quantity == "I_V(M→Y)"}
    assert set(usable) == {layer.label for layer in scope.layers}
    largest = max(usable.values(), key=lambda row: row.bits)
    assert largest.bits > 0.5 * largest.ceiling  # the class is the brightness
    assert 1.4 < largest.ceiling <= np.log2(3) + 0.2
    assert any(e.quantity == "I_V(S→Y|U,↓S)" and np.isfinite(e.bits) for e in estimates)


def test_labels_of_several_classes_tell_them_apart() -> None:
    masks = np.zeros((6, 4, 4), np.uint8)
    masks[2:4], masks[4:] = 1, 2
    for scheme in (KMeansLabels(3), BlockLabels(2, threshold=0)):
        labels = scheme.labels(masks)
        assert len(set(labels.tolist())) == 3
        assert (labels[::2] == labels[1::2]).all()
    with pytest.raises(InvalidArgument, match=r"a mask of 4x6x4 cannot be cut into 4x4x4 blocks: .* divides all sides"):
        BlockLabels(4).labels(np.zeros((1, 4, 6, 4), np.uint8))


def test_data_that_cannot_be_is_refused() -> None:
    fine = volumes(2)
    with pytest.raises(InvalidArgument, match="masks must be uint8 with values 0 and 1, got uint8 up to 2"):
        us.SegmentationData(fine.images, fine.masks, fine.names, "x")
    with pytest.raises(InvalidArgument, match="classes must be 2 to 255, got 1"):
        us.SegmentationData(fine.images, fine.masks, fine.names, "x", 1)
    with pytest.raises(InvalidArgument, match="held-out masks of 2 classes do not go with a probe set of 3"):
        held = us.SegmentationData(fine.images, (fine.masks > 0).astype(np.uint8), fine.names, "x")
        us.Scope(Small3d(), fine, held_out=held, labels=[])


def of_sides(sides: int) -> nn.Module:
    """A small U-Net with batch norm, for images or for volumes that are one slice deep; both with the same weights."""
    torch.manual_seed(0)
    flat = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1), nn.Sigmoid()
    )
    if sides == 2:
        return flat
    deep = nn.Sequential(
        nn.Conv3d(1, 4, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(4), nn.ReLU(),
        nn.Conv3d(4, 1, (1, 3, 3), padding=(0, 1, 1)), nn.Sigmoid(),
    )  # fmt: skip
    deep.load_state_dict(
        {name: value[:, :, None] if value.ndim == 4 else value for name, value in flat.state_dict().items()}
    )
    return deep


@pytest.mark.parametrize("channels_last", [True, False])
def test_volumes_of_one_slice_train_as_their_slices(channels_last: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (10, 8, 8), dtype=np.uint8)
    images = (masks[:, None] * 180 + rng.integers(0, 70, (10, 1, 8, 8))).astype(np.uint8)
    flat = us.SegmentationData(images, masks, tuple("abcdefghij"), "flat")
    deep = us.SegmentationData(images[:, :, None], masks[:, None], flat.names, "deep")
    config = us.TrainingConfig(
        epochs=3, batch_size=4, precision="float32", learning_rate=0.01, channels_last=channels_last
    )
    curves = []
    for sides, data in ((2, flat), (3, deep)):
        train, validation = data.split(0.3)
        records: list[us.table.EpochRecord] = []
        us.Trainer(of_sides(sides), train, validation, config, tmp_path / str(sides)).run(on_epoch=records.append)
        curves.append([(row.validation_loss, row.validation_dice, row.validation_range) for row in records])
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)
    assert curves[0][-1][0] < curves[0][0][0]


class Pairs(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((1, 4, 4), row / 10), torch.full((1, 4, 4), row % 2)


class Stream(IterableDataset):
    def __iter__(self):  # type: ignore[no-untyped-def]
        for row in range(100):
            yield {"image": np.full((4, 4), row, np.uint8), "label": np.eye(4) * (row % 3)}


def test_any_dataset_gives_its_images() -> None:
    data = from_dataset(Pairs(), 4, seed=1)
    assert data.images.shape == (4, 1, 4, 4)
    assert data.images.dtype == np.float32
    assert [float(image.max()) for image in data.images] == pytest.approx([int(name) / 10 for name in data.names])
    assert (data.classes, data.source) == (2, "Pairs")
    stream = from_dataset(Stream(), 5, image="image", mask="label")
    assert (stream.names, stream.images.dtype, stream.classes) == (tuple("01234"), np.dtype(np.uint8), 3)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([(np.zeros((1, 4, 4)), np.zeros((4, 5)))], r"image \[1, 4, 4\] and mask \[4, 5\] do not belong together"),
        ([(np.zeros((1, 4, 4)), np.full((4, 4), 0.5))], "a mask holds whole numbers from 0 to 254"),
        ([(np.zeros((1, 4, 4)), np.full((4, 4), 255))], "a mask holds whole numbers from 0 to 254"),
        ([(np.full((1, 4, 4), np.nan), np.zeros((4, 4)))], "holds what is no finite number"),
        ([{"x": 1}], r"item 0 of list has no image 0 with a mask 1 \(keys x\): say where they are"),
        ([7], r"item 0 of list has no image 0 with a mask 1 \(a int\)"),
        ([], "list gives no image"),
        (
            [(np.zeros((1, 4, 4)), np.zeros((4, 4))), (np.zeros((1, 6, 4)), np.zeros((6, 4)))],
            "resize or crop them in the dataset's transforms",
        ),
    ],
)
def test_a_dataset_that_does_not_give_them_is_refused(items: list[object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        from_dataset(items)


VALUES: dict[str, tuple[object, dict[str, object], str]] = {
    "a fraction": (np.array([[0.0, 0.5]]), {}, "whole numbers from 0 to 254, the classes of its pixels: this one holds 0.5"),
    "a negative number": (np.array([[0, -3]]), {}, "this one holds -3"),
    "some above the classes": (np.array([[7, 2, 5, 1]]), {"classes": 3}, "from 0 to 2, .*: this one holds 5, 7"),
    "one beside what is ignored": (
        np.array([[9, 4, 1]]), {"classes": 3, "ignore": 9}, "and 9 where a pixel is ignored: this one holds 4",
    ),
    "no number": (np.array([[0.0, np.nan]]), {}, "holds what is no finite number: nan in its mask"),
    "an infinite one": (np.array([[np.inf, 0.0]]), {}, "holds what is no finite number: inf in its mask"),
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_is_no_class_is_named_with_its_item(kind: str) -> None:
    mask, options, text = VALUES[kind]
    two = np.concatenate([np.asarray(mask)] * 2)
    with pytest.raises(DataError, match=f"^item 1 of list.*{text}"):
        from_dataset([(np.zeros(two.shape), np.zeros(two.shape)), (np.zeros(two.shape), two)], **options)


class Noted(np.ndarray):
    """An array that knows its file, as MONAI's MetaTensor does."""

    meta: dict[str, object]


@pytest.mark.parametrize("file", ["case_7.nii.gz", "a\nb.png", None, 3])
def test_a_file_that_metadata_name_is_in_the_error(file: object) -> None:
    image = np.zeros((1, 4, 4)).view(Noted)
    image.meta = {} if file is None else {"filename_or_obj": file}
    named = f" \\({re.escape(printable(file))}\\)" if isinstance(file, str) else ""
    with pytest.raises(DataError, match=f"^item 0 of list{named}: image"):
        from_dataset([{"image": image, "label": np.zeros((5, 5))}], image="image", mask="label")


class Waves(nn.Module):
    """A U-Net of one level for signals."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.below = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 4, 3, padding=1)
        self.up, self.last = nn.ConvTranspose1d(4, 3, 2, stride=2), nn.Conv1d(6, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities, [b, 1, length]."""
        top = torch.relu(self.first(x))
        deep = torch.relu(self.below(nn.functional.max_pool1d(top, 2)))
        return torch.sigmoid(self.last(torch.cat([top, self.up(deep)], dim=1)))


@pytest.mark.long
def test_signals_are_measured() -> None:
    rng = np.random.default_rng(0)
    items = [(rng.normal(size=(2, 16)).astype(np.float32), rng.integers(0, 2, (1, 16))) for _ in range(16)]
    data = from_dataset(items)
    assert (data.image_size, data.channels, data.masks.shape) == ((16,), 2, (16, 16))
    assert from_dataset([(pixels[0], mask[0]) for pixels, mask in items]).images.shape == (16, 1, 16)
    scope = us.Scope(Waves(), data.subset(range(10)), held_out=data.subset(range(10, 16)), labels=[BlockLabels(2)])
    rows = scope.measure(0)
    assert len(scope.skips) == 1 and {row.quantity for row in rows} >= {
        Quantity.USABLE,
        Quantity.USABLE_SKIP_GIVEN_POOLED,
    }
    assert all(math.isfinite(row.bits) or row.reason for row in rows)


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Four cases of 6 × 8 × 10 voxels along x, y, z, two channels and a mask of three classes, bright where x is large."""
    about = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "a": 1, "b": 2},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for case in range(4):
        mask = np.zeros((6, 8, 10), np.uint8)
        mask[3:], mask[3:, :, 5:] = 1, 2
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "labelsTr" / f"case_{case}.nii.gz")
        for channel in range(2):
            image = (mask * (channel + 1) + case).astype(np.float32)
            nibabel.save(
                nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "imagesTr" / f"case_{case}_000{channel}.nii.gz"
            )
    return tmp_path


def test_nnunets_folders_are_read(nnunet: Path) -> None:
    data = load_nnunet(nnunet, size=(10, 8, 6), standardised=False)
    assert data.images.shape == (4, 2, 10, 8, 6)  # channels, then z, y, x
    assert (data.classes, data.names) == (3, ("case_0", "case_1", "case_2", "case_3"))
    assert (data.images[1, 1] == data.masks[1] * 2 + 1).all()
    assert (data.masks[:, :, :, :3] == 0).all()
    assert (data.masks[:, 5:, :, 3:] == 2).all()
    smaller = load_nnunet(nnunet, size=(5, 4, 4), n=2)
    assert smaller.images.shape == (2, 2, 5, 4, 4)
    assert set(np.unique(smaller.masks)) == {0, 1, 2}
    whole = load_nnunet(nnunet, size=(10, 8, 6))
    assert whole.images.mean(axis=(2, 3, 4)) == pytest.approx(np.zeros((4, 2)), abs=1e-5)
    assert whole.images.std(axis=(2, 3, 4)) == pytest.approx(np.ones((4, 2)), abs=1e-4)


def test_nifti_files_are_read(nnunet: Path) -> None:
    images = sorted((nnunet / "imagesTr").glob("*_0000.nii.gz"))
    masks = sorted((nnunet / "labelsTr").glob("*.nii.gz"))
    data = load_nifti(images, masks, size=(10, 8, 6))
    assert data.images.shape == (4, 1, 10, 8, 6)
    assert data.classes == 3


def test_what_is_no_data_set_is_refused(nnunet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nowhere has no dataset.json: is it a data set of nnU-Net\?"):
        load_nnunet(tmp_path / "nowhere", size=(4, 4, 4))
    with pytest.raises(InvalidArgument, match=r"size must be \(height, width\) or \(depth, height, width\)"):
        load_nnunet(nnunet, size=(4,))
    with pytest.warns(UserWarning, match="its 4 volumes are 40 slices along their depth, those of a volume a group"):
        assert len(set(load_nnunet(nnunet, size=(4, 4)).groups)) == 4
    with pytest.raises(DataError, match=r"no \*.nii.gz in labelsTs"):
        load_nnunet(nnunet, size=(4, 4, 4), part="Ts")
    first = nnunet / "labelsTr" / "case_0.nii.gz"
    kept = first.read_bytes()
    first.write_bytes(b"no volume")
    with pytest.raises(DataError, match=r"case_0.nii.gz cannot be read as NIfTI"):
        load_nnunet(nnunet, size=(4, 4, 4))
    header = bytearray(gzip.decompress(kept))
    header[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()  # dim: a bomb of 27 tera-voxels
    first.write_bytes(gzip.compress(bytes(header)))
    with pytest.raises(DataError, match=r"case_0\.nii\.gz claims 27000000000000 voxels: at most 134217728 are read"):
        load_nnunet(nnunet, size=(4, 4, 4))
    (nnunet / "dataset.json").write_text('{"labels": [')
    with pytest.raises(DataError, match=r"dataset.json cannot be read"):
        load_nnunet(nnunet, size=(4, 4, 4))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingDependency, match=r'NIfTI needs nibabel: pip install "unetscope\[nifti\]"'):
        load_nifti([first], [first], size=(4, 4, 4))
