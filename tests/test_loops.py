"""Any training loop: what a measurement finds and keeps, alone and shared, and that it changes no weight."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

import foreign
import unetscope as us
from unetscope.base.errors import NetworkError, RunFolderError
from unetscope.measure import Compute
from unetscope.networks.inspection import build_network
from unetscope.report.render import render_run
from unetscope.report.report_data import report_data_of
from unetscope.runs.folder import RunFolder
from unetscope.runs.recorder import Recorder

pytestmark = pytest.mark.usefixtures("sketched_figures")
FEW = {"labels": [us.KMeansLabels(2)], "epochs": [0, 1, 2]}
LIGHT = {"labels": [], "estimators": [us.KDE()], "layers": ["down.0", "head"]}
TWO = {**FEW, "epochs": [0, 1]}  # the last of the training is measured all the same


@pytest.fixture(scope="module")
def nuclei() -> us.SegmentationData:
    return us.synthetic_nuclei(12, image_size=32)


def loader(data: us.SegmentationData) -> DataLoader:
    images = torch.from_numpy(data.images).float() / 255
    return DataLoader(TensorDataset(images, torch.from_numpy(data.masks)[:, None].float()), batch_size=4, shuffle=True)


def plain_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader) -> None:
    model.train()
    for images, masks in batches:
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(images), masks).backward()
        optimizer.step()


def trained(data: us.SegmentationData, out: Path | None) -> nn.Module:
    """A network with dropout and normalisation after two epochs, measured on the way or not."""
    torch.manual_seed(0)
    model, batches = foreign.Padded(), loader(data)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    recorder = None if out is None else Recorder(us.Scope(model, data, **FEW), out)
    for epoch in range(3):
        if epoch:
            plain_epoch(model, optimizer, batches)
        if recorder:
            recorder.measure(epoch)
            recorder.record(epoch, dice=0.1 * epoch)
    return model


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.long
def test_measuring_changes_no_bit_of_a_training(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    with_it, without = trained(nuclei, tmp_path / "run"), trained(nuclei, None)
    assert same_weights(with_it, without)


class Drawn(torch.utils.data.Dataset):
    """Images that are made with every random state that there is, as augmentations are."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = random.random() + np.random.rand() + torch.rand(1)
        return (torch.full((1, 16, 16), float(index)) + noise).requires_grad_(), torch.eye(16)


def test_nothing_that_a_training_draws_from_is_moved() -> None:
    def state() -> tuple[object, ...]:
        return random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()

    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Dropout())
    before = state()
    data = us.from_dataset(Drawn())
    assert state() == before
    scope = us.Scope(model, data, labels=[])
    scope.measure(0)
    assert state() == before


@pytest.mark.long
def test_a_measurement_is_the_same_within_autocast_and_inference_mode() -> None:
    torch.manual_seed(0)
    model = foreign.Padded(width=2)
    train, held_out = us.synthetic_nuclei(10, image_size=16).split(0.4)
    scope = us.Scope(model, train, held_out=held_out, labels=[us.KMeansLabels(2)])
    plain = scope.measure(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert repr(scope.measure(0)) == repr(plain)
    with torch.inference_mode():
        assert repr(scope.measure(0)) == repr(plain)


@pytest.mark.long
def test_a_folder_of_other_images_is_not_gone_on_with(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    model = foreign.Padded()
    Recorder(us.Scope(model, nuclei, **FEW), tmp_path / "run")
    others = us.synthetic_nuclei(12, image_size=32, seed=1)
    with pytest.raises(RunFolderError, match=r"was measured on other images \(probe set\): choose"):
        Recorder(us.Scope(model, others, **FEW), tmp_path / "run")
    with pytest.raises(RunFolderError, match="was measured by other estimators or labels: choose another folder"):
        Recorder(us.Scope(model, nuclei, estimators=[us.KDE(0.5)], **FEW), tmp_path / "run")


@pytest.mark.long
def test_another_training_in_the_same_folder_is_told_so(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    recorder = Recorder(us.Scope(foreign.Padded(), nuclei, **FEW), tmp_path / "run")
    assert recorder.measure(0)
    assert not recorder.measure(0)
    assert recorder.measure(1)
    with pytest.warns(
        UserWarning, match="holds epochs 0 to 1 of an earlier training, which are not measured again: choose"
    ):
        Recorder(us.Scope(foreign.Padded(), nuclei, **FEW), tmp_path / "run").measure(0)


@pytest.mark.long
def test_what_a_loop_measured_is_a_run_folder(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    model = trained(nuclei, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    assert folder.flow().epochs == (0, 1, 2)
    assert [record.validation_dice for record in folder.epochs()] == pytest.approx([0, 0.1, 0.2])
    assert "<h2 id=" in render_run(folder).read_text()
    assert report_data_of(folder)["facts"]["Network"]["class"] == "Padded"
    assert report_data_of(folder)["command"] is None
    with pytest.raises(us.UnetscopeError, match=r"in a loop of its own: unetscope verify .* --network FILE\.py:build"):
        us.verify(folder.path)
    again = Recorder(us.Scope(model, nuclei, **FEW), tmp_path / "run")  # killed, and begun anew
    assert not again.measure(2)
    assert again.flow.epochs == (0, 1, 2)
    assert len(again.flow) == len(folder.flow())
    with pytest.raises(RunFolderError, match="holds the layers of another network: choose another folder"):
        Recorder(us.Scope(us.UNet(2, depth=1), nuclei, labels=[]), tmp_path / "run")


@pytest.mark.long
def test_a_page_without_dice_is_a_page(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    recorder = Recorder(us.Scope(foreign.Padded(), nuclei, **FEW), tmp_path / "run")
    recorder.measure(0)
    assert render_run(RunFolder.open(tmp_path / "run")).is_file()


# Lightning.


def lightning_module(batch_norm: bool = True) -> nn.Module:
    pytest.importorskip("lightning", reason="lightning is an extra")
    from lightning.pytorch import LightningModule

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = foreign.Padded()
            if not batch_norm:
                for block in (*self.net.down, *self.net.up):
                    block[1] = block[5] = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images)

        def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
            images, masks = batch
            return nn.functional.binary_cross_entropy_with_logits(self.net(images), masks)

        def validation_step(self, batch: list[Tensor], _index: int) -> None:
            self.log("val_dice", 0.25)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), 1e-2)

    torch.manual_seed(0)
    return Module()


def fit(
    data: us.SegmentationData,
    folder: Path,
    callbacks: list[object],
    epochs: int = 2,
    batch_norm: bool = True,
    **more: object,
) -> nn.Module:
    module = lightning_module(batch_norm)
    from lightning.pytorch import Trainer, seed_everything

    seed_everything(0, verbose=False)
    trainer = Trainer(
        max_epochs=epochs, callbacks=callbacks, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, loader(data), loader(data), **more)  # type: ignore[arg-type]
    return module


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", ["", "net"])
def test_lightning(nuclei: us.SegmentationData, tmp_path: Path, network: str) -> None:
    without = fit(nuclei, tmp_path / "a", [])
    callback = us.UnetscopeCallback(nuclei, tmp_path / "run", network=network, **TWO)
    with_it = fit(nuclei, tmp_path / "b", [callback])
    assert same_weights(with_it, without)
    assert callback.flow.epochs == (0, 1, 2)
    assert {skip.name for skip in callback.flow.skips} == {"skip1", "skip2", "skip3"}
    assert [record.validation_dice for record in RunFolder.open(tmp_path / "run").epochs()] == [0.25, 0.25]
    checkpoint = next((tmp_path / "b").rglob("*.ckpt"))
    later = us.UnetscopeCallback(nuclei, tmp_path / "run", network=network, labels=FEW["labels"], epochs=[0, 1, 2, 3])
    fit(nuclei, tmp_path / "c", [later], epochs=3, ckpt_path=checkpoint)
    assert later.flow.epochs == (0, 1, 2, 3)


def averaging(name: str) -> object:
    """What puts other weights into the network at the end of a training."""
    from lightning.pytorch import callbacks

    class Halving(callbacks.Callback):
        def on_train_end(self, _trainer: object, pl_module: nn.Module) -> None:
            for parameter in pl_module.parameters():
                parameter.data.mul_(0.5)

    class Unchanged(callbacks.Callback):
        def on_train_end(self, _trainer: object, pl_module: nn.Module) -> None:
            pl_module.load_state_dict(pl_module.state_dict())

    makers = {
        "SWA": lambda: callbacks.StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1),
        "EMA": lambda: callbacks.EMAWeightAveraging(decay=0.5),
        "own": Halving,
        "none": Unchanged,
    }
    return makers[name]()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "order", "batch_norm", "again"),
    [
        ("SWA", "measured first", False, True),
        ("SWA", "measured last", True, False),
        ("EMA", "measured first", True, True),
        ("EMA", "measured last", True, True),
        ("own", "measured first", True, True),
        ("none", "measured first", True, False),
    ],
)
def test_the_last_epoch_is_of_the_network_that_lightning_hands_over(
    nuclei: us.SegmentationData, tmp_path: Path, name: str, order: str, batch_norm: bool, again: bool
) -> None:
    """Averaging changes the weights after the last epoch; for a network with BatchNorm, SWA adds an epoch of its own."""
    pytest.importorskip("lightning", reason="lightning is an extra")
    options = LIGHT | {"epochs": [2]}
    callback = us.UnetscopeCallback(nuclei, tmp_path / "run", network="net", **options)
    callbacks = [callback, averaging(name)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = fit(
            nuclei, tmp_path, callbacks if order == "measured first" else callbacks[::-1], batch_norm=batch_norm
        )
    assert any("epoch 2 is measured again" in str(warning.message) for warning in caught) == again
    last = callback.flow.epochs[-1]
    assert last == (3 if name == "SWA" and batch_norm else 2)
    handed_over = {estimate.key: estimate.bits for estimate in us.Scope(module.net, nuclei, **options).measure(last)}
    for flow in (callback.flow, RunFolder.open(tmp_path / "run").flow()):
        bits = {estimate.key: estimate.bits for estimate in flow.select(epoch=last).estimates}
        assert bits == pytest.approx(handed_over, abs=1e-9, nan_ok=True)


def test_weights_that_a_loop_averages_are_measured_again(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = foreign.Padded()
    averaged = AveragedModel(model)
    assert us.Scope(averaged, nuclei, **LIGHT).layers == us.Scope(model, nuclei, **LIGHT).layers
    recorder = Recorder(us.Scope(model, nuclei, **LIGHT), tmp_path / "run")
    plain_epoch(model, torch.optim.Adam(model.parameters(), 1e-2), loader(nuclei))
    assert recorder.measure(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not recorder.measure(1, last=True)
    averaged.update_parameters(model)
    plain_epoch(model, torch.optim.Adam(model.parameters(), 1e-2), loader(nuclei))
    averaged.update_parameters(model)
    model.load_state_dict(averaged.module.state_dict())
    with pytest.warns(UserWarning, match="the weights at the end of the training are not those measured after epoch 1"):
        assert recorder.measure(1, last=True)


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_is_not_there(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    lightning_module()
    with pytest.raises(NetworkError, match="Module has no attribute 'model': name where the network is"):
        fit(nuclei, tmp_path, [us.UnetscopeCallback(nuclei, tmp_path / "run", network="model")])


# MONAI and Ignite.


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_monai(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    pytest.importorskip("monai", reason="monai is an extra")
    pytest.importorskip("ignite", reason="ignite is an extra")
    from monai.engines import SupervisedTrainer

    def engine(handlers: list[object]) -> nn.Module:
        torch.manual_seed(0)
        network = foreign.Padded()
        batches = [{"image": images, "label": masks} for images, masks in loader(nuclei)]
        trainer = SupervisedTrainer(
            device=torch.device("cpu"), max_epochs=2, train_data_loader=batches, network=network,
            optimizer=torch.optim.Adam(network.parameters(), 1e-2), loss_function=nn.BCEWithLogitsLoss(),
            train_handlers=handlers,
        )  # fmt: skip
        trainer.run()
        return network

    handler = us.UnetscopeHandler(nuclei, tmp_path / "run", **TWO)
    assert same_weights(engine([handler]), engine([]))
    assert handler.flow.epochs == (0, 1, 2)
    assert RunFolder.open(tmp_path / "run").flow().epochs == (0, 1, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_that_a_later_handler_loads_at_the_end_are_measured(
    nuclei: us.SegmentationData, tmp_path: Path
) -> None:
    engines = pytest.importorskip("ignite.engine", reason="ignite is an extra")
    torch.manual_seed(0)
    model = foreign.Padded()
    best = {name: 0.5 * value for name, value in model.state_dict().items()}
    engine = engines.Engine(lambda _engine, _batch: None)
    handler = us.UnetscopeHandler(nuclei, tmp_path / "run", network=model, **LIGHT)
    handler.attach(engine)
    engine.add_event_handler(engines.Events.COMPLETED, lambda _engine: model.load_state_dict(best))
    with pytest.warns(UserWarning, match=r"measured after epoch 1, .*epoch 1 is measured again"):
        engine.run([0], max_epochs=1)
    last = {estimate.key: estimate.bits for estimate in handler.flow.select(epoch=1).estimates}
    handed_over = {estimate.key: estimate.bits for estimate in us.Scope(model, nuclei, **LIGHT).measure(1)}
    assert last == pytest.approx(handed_over, abs=1e-9, nan_ok=True)


@pytest.mark.filterwarnings("ignore")
def test_an_engine_without_a_network_is_told_so(nuclei: us.SegmentationData, tmp_path: Path) -> None:
    engines = pytest.importorskip("ignite.engine", reason="ignite is an extra")
    engine = engines.Engine(lambda _engine, _batch: None)
    us.UnetscopeHandler(nuclei, tmp_path / "run").attach(engine)
    with pytest.raises(NetworkError, match="Engine holds no network"):
        engine.run([0], max_epochs=1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("extra", "missing", "name"),
    [("lightning", ["lightning", "lightning.pytorch", "pytorch_lightning"], "UnetscopeCallback"),
     ("monai", ["ignite", "ignite.engine"], "UnetscopeHandler")],
)  # fmt: skip
def test_a_missing_extra_says_how_to_get_it(extra: str, missing: list[str], name: str) -> None:
    code = f"import sys\nfor name in {missing}: sys.modules[name] = None\nimport unetscope as us\n"
    code += f"try: us.{name}\nexcept us.UnetscopeError as error: print(error)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert f'pip install "unetscope[{extra}]"' in printed


# Several processes.

SHARED = """
import sys, torch
from torch import distributed, nn
sys.path.insert(0, sys.argv[1])
import foreign
import unetscope as us
from unetscope.measure import Compute
from unetscope.runs.recorder import Recorder

torch.set_num_threads(1)
distributed.init_process_group("gloo")
torch.manual_seed(0)
nuclei = us.synthetic_nuclei(27, image_size=16)
train, held_out = nuclei.split(0.4)
model = nn.parallel.DistributedDataParallel(foreign.Padded(width=2))
scope = us.Scope(model, train, held_out=held_out, labels=[us.KMeansLabels(2)],
                 compute=Compute(largest_batch=4, share=True),
                 estimators=[us.KDE(), us.Binning(), us.estimators.Renyi()],
                 probes=[us.estimators.Linear(), us.estimators.Convolutional(4)])
Recorder(scope, sys.argv[2]).measure(0)
distributed.destroy_process_group()
"""


@pytest.mark.long
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--rdzv-backend=c10d",
         "--rdzv-endpoint=localhost:0", str(script), str(Path(__file__).parent), str(tmp_path / "run")],
        check=True, timeout=300, capture_output=True,
    )  # fmt: skip
    shared = RunFolder.open(tmp_path / "run").flow()
    torch.manual_seed(0)
    train, held_out = us.synthetic_nuclei(27, image_size=16).split(0.4)
    scope = us.Scope(
        foreign.Padded(width=2), train, held_out=held_out, labels=[us.KMeansLabels(2)],
        compute=Compute(largest_batch=4),
        estimators=[us.KDE(), us.Binning(), us.estimators.Renyi()],
        probes=[us.estimators.Linear(), us.estimators.Convolutional(4)],
    )  # fmt: skip
    alone = {estimate.key: estimate for estimate in scope.measure(0)}
    assert {estimate.key for estimate in shared.estimates} == alone.keys()
    for estimate in shared.estimates:
        expected = alone[estimate.key]
        for name in ("bits", "lower", "upper", "low", "high", "ceiling", "null_mean", "train_bits"):
            a, b = getattr(estimate, name), getattr(expected, name)
            assert a == pytest.approx(b, abs=1e-6, nan_ok=True), (estimate.key, name)
        assert np.allclose(estimate.per_image, expected.per_image, atol=1e-6)


def test_masks_that_are_no_classes_are_refused() -> None:
    image = torch.rand(3, 16, 16)
    one_hot = nn.functional.one_hot(torch.randint(0, 3, (16, 16)), 3).movedim(-1, 0)
    with pytest.raises(
        us.UnetscopeError, match=r"a mask \[3, 16, 16\] like its image seems to be one-hot: give the classes"
    ):
        us.from_dataset([(image, one_hot)] * 3)
    with pytest.raises(us.UnetscopeError, match=r"hold 0, 128, which would be 129 classes: say classes=…, or map them"):
        us.from_dataset([(image, 128 * torch.eye(16).int())] * 3)
    assert us.from_dataset([(image, 128 * torch.eye(16).int())] * 3, classes=129).classes == 129


def test_a_network_beside_dataclasses_is_built_and_one_that_ends_the_process_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Config:\n    channels: int = 3\n"
        "def build():\n    return nn.Conv2d(Config().channels, 1, 1)\n"
    )
    (tmp_path / "ends.py").write_text("import argparse\nargparse.ArgumentParser().parse_args(['--lr'])\n")
    assert isinstance(build_network(f"{tmp_path / 'mine.py'}:build"), nn.Conv2d)
    with pytest.raises(NetworkError, match=r"ends\.py ends the process where it is imported: put that under"):
        build_network(f"{tmp_path / 'ends.py'}:build")
