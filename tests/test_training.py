from __future__ import annotations

import json
import math
import re
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from unetscope.base.errors import TrainingError
from unetscope.data.segmentation import SegmentationData
from unetscope.data.synthetic import synthetic_nuclei
from unetscope.networks.unet import UNet
from unetscope.table.records import EpochRecord
from unetscope.training.checkpoints import STATE, WEIGHTS, Checkpoints
from unetscope.training.config import TrainingConfig
from unetscope.training.scores import binary_cross_entropy, dice_per_image
from unetscope.training.trainer import Trainer

TRAIN, VALIDATION = synthetic_nuclei(14, image_size=16).split(0.3)


class Noisy(UNet):
    """A network with dropout, so that training draws from the random state."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(images, 0.1, self.training))


def trained(
    folder: Path,
    *,
    stop_after: int | None = None,
    marked: tuple[int, ...] = (0, 2, 5),
    network: type[UNet] = Noisy,
    seconds_between_checkpoints: float = 0.0,
    **config: object,
) -> tuple[dict[str, torch.Tensor], list[EpochRecord]]:
    """Weights and records of a training that may be cut off after some epoch, as a kill would."""
    torch.manual_seed(0)
    values = {"epochs": 5, "optimizer": "adam", "batch_size": 4, **config}
    records: list[EpochRecord] = []

    class Killed(BaseException):
        pass

    def on_epoch(record: EpochRecord) -> None:
        if stop_after is not None and record.epoch > stop_after:
            raise Killed
        records.append(record)

    trainer = Trainer(
        network(2, depth=1),
        TRAIN,
        VALIDATION,
        TrainingConfig.model_validate(values),
        folder,
        marked=marked,
        seconds_between_checkpoints=seconds_between_checkpoints,
    )
    with suppress(Killed):
        trainer.run(on_epoch=on_epoch)
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}, records


def numbers(records: list[EpochRecord]) -> dict[int, tuple[float, ...]]:
    return {
        r.epoch: (r.train_loss_running, r.train_dice_running, r.validation_loss, r.validation_dice) for r in records
    }


@pytest.mark.long
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("seconds_between_checkpoints", [0.0, 1e9])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_training_ends_with_the_same_bits(
    tmp_path: Path, optimizer: str, seconds_between_checkpoints: float, precision: str
) -> None:
    options = {
        "optimizer": optimizer,
        "precision": precision,
        "seconds_between_checkpoints": seconds_between_checkpoints,
    }
    expected, records = trained(tmp_path / "whole", **options)  # type: ignore[arg-type]
    for stop in (0, 1, 3, 4):
        folder = tmp_path / f"stopped after {stop}"
        _, before = trained(folder, stop_after=stop, **options)  # type: ignore[arg-type]
        weights, after = trained(folder, **options)  # type: ignore[arg-type]
        torch.testing.assert_close(weights, expected, rtol=0, atol=0)
        assert repr({**numbers(before), **numbers(after)}) == repr(numbers(records))


def test_a_finished_training_does_nothing_more(tmp_path: Path) -> None:
    trained(tmp_path)
    assert trained(tmp_path)[1] == []


def test_marked_epochs_and_the_last_keep_their_checkpoints_and_others_go(tmp_path: Path) -> None:
    trained(tmp_path, marked=(0, 2))
    assert Checkpoints(tmp_path).epochs() == (0, 2, 5)
    assert {path.name for path in tmp_path.iterdir()} == {"epoch-00000", "epoch-00002", "epoch-00005"}


def test_the_same_seed_gives_the_same_order_of_images_to_every_network(tmp_path: Path) -> None:
    orders: list[list[bytes]] = []

    class Watching(UNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if self.training:
                orders[-1].append(images.contiguous().numpy().tobytes())
            return super().forward(images)

    for without in ((), ("skip1",)):
        orders.append([])
        model = Watching(2, depth=1, without=without)
        Trainer(
            model,
            TRAIN,
            VALIDATION,
            TrainingConfig(epochs=2, batch_size=4, precision="float32"),
            tmp_path / str(len(without)),
        ).run()
    assert orders[0] == orders[1]
    assert len(set(orders[0])) == len(orders[0])  # another order in each epoch


def test_what_an_epoch_says_of_itself(tmp_path: Path) -> None:
    weights, records = trained(tmp_path, network=UNet)
    model = UNet(2, depth=1).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        predicted = model(torch.from_numpy(VALIDATION.images) * VALIDATION.scale)
    truth = torch.from_numpy(VALIDATION.masks)[:, None].float()
    assert records[-1].validation_dice == pytest.approx(dice_per_image(predicted, truth).mean().item(), abs=1e-6)
    assert records[-1].validation_loss == pytest.approx(
        nn.functional.binary_cross_entropy(predicted, truth).item(), abs=1e-5
    )
    assert math.isnan(records[0].train_loss_running)
    assert [record.epoch for record in records] == list(range(6))
    assert records[-1].train_loss_running < records[1].train_loss_running


def test_the_loss_is_torchs_own_where_that_is_defined() -> None:
    p, t = torch.rand(3, 1, 8, 8).requires_grad_(), (torch.rand(3, 1, 8, 8) > 0.5).float()
    ours, theirs = binary_cross_entropy(p, t), nn.functional.binary_cross_entropy(p, t)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, p, retain_graph=True)[0] for loss in (ours, theirs)))
    certain = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = binary_cross_entropy(certain, torch.tensor([1.0, 0.0]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-7), rel=0.02)
    assert torch.isfinite(certain.grad).all()


def test_dice_is_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.random((5, 1, 6, 6)), rng.integers(0, 2, (5, 1, 6, 6))
    t[0] = 0
    p[0] = 0.2
    expected = []
    for probabilities, truth in zip(p, t, strict=True):
        hard = probabilities > 0.5
        expected.append((2 * (hard & (truth == 1)).sum() + 1) / (hard.sum() + truth.sum() + 1))
    ours = dice_per_image(torch.from_numpy(p), torch.from_numpy(t).double())
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert ours[0] == 1  # empty, and said to be empty


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"the loss is nan at epoch \d: the last good checkpoint is .*epoch-0000\d; lower"
    ) as e:
        trained(tmp_path, optimizer="sgd", learning_rate=3e38)
    assert "(3e+38)" in str(e.value)
    for epoch in Checkpoints(tmp_path).epochs():
        model = UNet(2, depth=1)
        Checkpoints(tmp_path).load_weights(epoch, model)
        assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("file", [WEIGHTS, STATE])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "noise"])
def test_a_damaged_checkpoint_is_named_and_left(tmp_path: Path, file: str, damage: str) -> None:
    trained(tmp_path, stop_after=2)
    path = tmp_path / "epoch-00002" / file
    whole = path.read_bytes()
    {
        "cut": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "gone": path.unlink,
        "noise": lambda: path.write_bytes(bytes(range(256)) * 10),
    }[damage]()
    with pytest.raises(
        TrainingError, match=r"epoch-00002 cannot be read .*: remove that folder to go on from the one before"
    ):
        trained(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, stop_after=2)
    with pytest.raises(TrainingError, match="epoch-00002 is of another network than the run's configuration"):
        Checkpoints(tmp_path).load_weights(2, UNet(3, depth=1))


def test_no_checkpoint_holds_a_pickle(tmp_path: Path) -> None:
    trained(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.name == "SHA256SUMS":
            assert re.fullmatch(r"([0-9a-f]{64}  (weights|state)\.safetensors\n){2}", path.read_text())
        elif path.is_file():
            content = path.read_bytes()
            (length,) = struct.unpack("<Q", content[:8])
            assert isinstance(json.loads(content[8 : 8 + length]), dict)


def test_a_kill_before_the_older_checkpoint_is_removed_leaves_none_behind(tmp_path: Path) -> None:
    trained(tmp_path / "whole", marked=(0,))
    trained(tmp_path / "killed", marked=(0,), stop_after=3)
    (tmp_path / "killed" / "epoch-00003").rename(tmp_path / "aside")
    trained(tmp_path / "killed", marked=(0,))
    (tmp_path / "aside").rename(tmp_path / "killed" / "epoch-00003")
    trained(tmp_path / "killed", marked=(0,))
    assert Checkpoints(tmp_path / "killed").epochs() == Checkpoints(tmp_path / "whole").epochs() == (0, 5)


def test_half_written_checkpoints_are_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".epoch-00003.1234.part").mkdir(parents=True)
    (tmp_path / ".epoch-00003.1234.part" / WEIGHTS).write_bytes(b"half")
    trained(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_16_bit_images_train_like_8_bit_ones(tmp_path: Path) -> None:
    sixteen = [
        SegmentationData(d.images.astype(np.uint16) * 257, d.masks, d.names, d.source) for d in (TRAIN, VALIDATION)
    ]
    dice = []
    for name, (train, validation) in {"8": (TRAIN, VALIDATION), "16": tuple(sixteen)}.items():
        records: list[EpochRecord] = []
        torch.manual_seed(0)
        Trainer(UNet(2, depth=1), train, validation, TrainingConfig(epochs=2), tmp_path / name).run(
            on_epoch=records.append
        )
        dice.append(records[-1].validation_loss)
    assert dice[0] == pytest.approx(dice[1], abs=1e-4)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_replayed_steps_train_as_steps_do(tmp_path: Path, optimizer: str, precision: str) -> None:
    """Batches of 4, 4 and 2 images, so that two graphs share the weights, and both are replayed from the fifth epoch on."""
    what = {"device": "cuda", "optimizer": optimizer, "precision": precision, "epochs": 12, "network": UNet}
    _, plain = trained(tmp_path / "plain", cuda_graphs=False, **what)
    _, replayed = trained(tmp_path / "replayed", cuda_graphs=True, **what)
    trained(tmp_path / "resumed", cuda_graphs=True, stop_after=7, **what)
    _, rest = trained(tmp_path / "resumed", cuda_graphs=True, **what)
    assert plain[-1].train_loss_running < plain[1].train_loss_running
    for records in (replayed, rest):
        for record in records[1:]:
            same = plain[record.epoch]
            assert record.train_loss_running == pytest.approx(same.train_loss_running, rel=1e-2)
            assert record.validation_loss == pytest.approx(same.validation_loss, rel=1e-2)


@needs_cuda
def test_training_runs_on_cuda(tmp_path: Path) -> None:
    _, records = trained(tmp_path, device="cuda", precision="bfloat16")
    assert records[-1].train_loss_running < records[1].train_loss_running
