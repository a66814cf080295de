"""Networks that predict masks at several depths: all predictions are trained, or it is said that one alone is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from foreign import Supervised
from runs import TINY
from unetscope.base.errors import InvalidArgument
from unetscope.data.synthetic import synthetic_nuclei
from unetscope.networks.surgery import without
from unetscope.runs.building import BuiltNetwork, built_network, untrained_predictions
from unetscope.runs.engines import InProcess
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.slimming import slim
from unetscope.runs.verification import verify
from unetscope.training.config import RunConfig, TrainingConfig, preset_config
from unetscope.training.outputs import OutputReading
from unetscope.training.scores import Task
from unetscope.training.trainer import Trainer

CODE = """
import torch
from torch import nn
from torch.nn import functional

class Levels(nn.Module):
    def __init__(self, form="list", channels=1):
        super().__init__()
        self.form = form
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.d, self.e = nn.Conv2d(12, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.head, self.lower, self.same = nn.Conv2d(4, 1, 1), nn.Conv2d(4, channels, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        a = self.a(x).relu()
        b = self.b(functional.max_pool2d(a, 2)).relu()
        c = self.c(functional.max_pool2d(b, 2)).relu()
        d = self.d(torch.cat([functional.interpolate(c, scale_factor=2), b], 1)).relu()
        e = self.e(torch.cat([functional.interpolate(d, scale_factor=2), a], 1)).relu()
        main, half = self.head(e), self.lower(d)
        if self.form == "training only" and not self.training:
            return main
        return {
            "list": lambda: [main, half],
            "smallest first": lambda: (half, main),
            "names": lambda: {"aux": [half], "out": main},
            "training only": lambda: [main, half],
            "stack": lambda: torch.stack([main, functional.interpolate(half, scale_factor=2)], dim=1),
            "one size": lambda: (main, self.same(e)),
            "alone": lambda: main,
        }[self.form]()
"""
SAID = (
    "the network gives 2 predictions in training, of which the first of the highest resolution is trained: "
    "--deep-supervision trains them all"
)
FORMS = ("list", "smallest first", "names", "training only", "stack", "one size")


def configured(folder: Path, form: str, *, supervised: bool = True, **changed: Any) -> Any:
    """A short training of `Levels` with its predictions in some form."""
    (folder / "nets.py").write_text(CODE)
    values = {name: value for name, value in TINY.items() if name not in ("network.width", "network.depth")}
    ours = {"network.code": f"{folder / 'nets.py'}:Levels", "network.arguments": [f"form={form}"], "training.epochs": 2}
    exact = {"training.precision": "float32", "training.deep_supervision": supervised}
    return preset_config("demo", {**values, **ours, **exact, **changed})


def with_network(folder: Path, form: str, *, supervised: bool) -> tuple[RunConfig, BuiltNetwork, int]:
    """A configuration, its network, and the channels of its images."""
    config = configured(folder, form, supervised=supervised)
    return config, built_network(config, 3), 3


def is_trained(network: nn.Module, head: str, *, supervised: bool, reading: OutputReading, folder: Path) -> bool:
    """Whether a step of training changes a head of a network."""
    before = network.get_submodule(head).weight.detach().clone()
    training = TrainingConfig(epochs=1, batch_size=4, precision="float32", deep_supervision=supervised)
    data = synthetic_nuclei(4, image_size=16)
    Trainer(network, data, data, training, folder, reading=reading).run()
    return not torch.equal(before, network.get_submodule(head).weight)


@pytest.mark.long
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("supervised", [True, False])
def test_every_prediction_is_trained(form: str, supervised: bool, tmp_path: Path) -> None:
    built = built_network(configured(tmp_path, form), 3)
    head = "same" if form == "one size" else "lower"
    assert is_trained(built.model, head, supervised=supervised, reading=built.reading, folder=tmp_path) == supervised
    main = built_network(configured(tmp_path, form), 3)
    assert is_trained(main.model, "head", supervised=supervised, reading=main.reading, folder=tmp_path / "main")


@pytest.mark.parametrize("form", FORMS)
def test_predictions_that_are_not_trained_are_said(form: str, tmp_path: Path) -> None:
    assert untrained_predictions(*with_network(tmp_path, form, supervised=True)) == ()
    assert untrained_predictions(*with_network(tmp_path, form, supervised=False)) == (SAID,)
    assert untrained_predictions(*with_network(tmp_path, "alone", supervised=False)) == ()


def test_counting_predictions_leaves_the_network_as_it_is(tmp_path: Path) -> None:
    config, network, _ = with_network(tmp_path, "training only", supervised=False)
    network.model.add_module("statistics", nn.BatchNorm2d(3))
    network.model.eval()
    before, drawn = copy.deepcopy(network.model.state_dict()), torch.get_rng_state()
    untrained_predictions(config, network, 3)
    assert not network.model.training
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(values, network.model.state_dict()[name]) for name, values in before.items())


def test_what_cannot_be_supervised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="the network gives one prediction in training, so leave it out"):
        run_experiment(configured(tmp_path, "alone"), tmp_path / "run")
    arguments = {"network.arguments": ["form=list", "channels=5"]}
    with pytest.raises(
        InvalidArgument, match=r"gives \[1, 16, 16\] in training, and beside it \[5, 8, 8\]: expected 1 cha"
    ):
        run_experiment(configured(tmp_path, "list", **arguments), tmp_path / "run")
    of_unet = preset_config("demo", {**TINY, "training.deep_supervision": True})
    with pytest.raises(InvalidArgument, match="the network gives one prediction in training"):
        run_experiment(of_unet, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_smaller_networks_are_trained_by_the_predictions_that_they_have(tmp_path: Path) -> None:
    run_experiment(configured(tmp_path, "list", supervised=False), tmp_path / "alone")
    assert SAID in RunFolder.open(tmp_path / "alone").facts["warnings"]
    run_experiment(configured(tmp_path, "list"), tmp_path / "run")
    assert SAID not in RunFolder.open(tmp_path / "run").facts["warnings"]
    verification = verify(tmp_path / "run", ["without-skip2", "depth1"], seeds=1, engine=InProcess())
    assert [variant.name for variant in verification.variants] == ["model1", "without-skip2", "depth1"]
    assert slim(tmp_path / "run", "depth1", fine_tune=1).savings.slim.parameters > 0


@pytest.mark.parametrize(("part", "count"), [("skip1", 2), ("skip2", 2), ("level2", 2), ("level1", 1)])
def test_a_network_without_a_part_gives_the_predictions_that_are_left(part: str, count: int, tmp_path: Path) -> None:
    built = built_network(configured(tmp_path, "list"), 3)
    assert built.structure is not None
    smaller = without(built.model, built.structure, part).train()
    assert len(built.reading.at_every_resolution(smaller(torch.rand(2, 3, 16, 16)), (16, 16))) == count


@pytest.mark.parametrize(
    "sides", [((8, 8), (4, 4)), ((8, 12), (4, 6), (2, 3)), ((8, 8), (8, 8)), ((4, 8, 8), (2, 4, 4)), ((8, 8),)]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_is_that_of_each_resolution_by_its_sides(sides: tuple[tuple[int, ...], ...], classes: int) -> None:
    """Held against PyTorch's own losses, and by masks that were made smaller by taking single pixels."""
    random = torch.Generator().manual_seed(0)
    masks = torch.randint(0, classes, (2, 1, *sides[0]), generator=random, dtype=torch.uint8)
    task = Task(classes)
    logits = [torch.randn(2, task.outputs, *own, generator=random) for own in sides]
    probabilities = OutputReading(task, "logits").at_every_resolution(logits, sides[0])
    expected, total = 0.0, 0.0
    for values in logits:
        step = sides[0][-1] // values.shape[-1]
        middles = (slice(None), 0, *[slice(step // 2, None, step)] * len(sides[0]))
        truth, weight = masks[middles].long(), 1 / step
        loss = (
            functional.binary_cross_entropy_with_logits(values[:, 0], truth.float())
            if classes == 2
            else functional.cross_entropy(values, truth)
        )
        expected, total = expected + weight * float(loss), total + weight
    assert float(task.supervised_loss(probabilities, masks)) == pytest.approx(expected / total, rel=1e-5)


def test_pixels_without_a_label_count_at_no_resolution() -> None:
    masks = torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)
    masks[..., :2, :] = 1
    task = Task(3, ignore=255)
    certain = [torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, side, side) for side in (4, 2)]
    assert float(task.supervised_loss(certain, masks)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.long
def test_it_is_the_loss_of_monai() -> None:
    """`DeepSupervisionLoss` sums where this takes the weighted mean."""
    losses = pytest.importorskip("monai.losses")
    random = torch.Generator().manual_seed(1)
    masks = torch.randint(0, 2, (2, 1, 16, 16), generator=random).float()
    logits = [torch.randn(2, 1, side, side, generator=random) for side in (16, 8, 4)]
    theirs = losses.DeepSupervisionLoss(torch.nn.BCEWithLogitsLoss(), weight_mode="exp")

    expected = float(theirs(logits, masks))
    ours = Task().supervised_loss([values.sigmoid() for values in logits], masks.to(torch.uint8))
    assert float(ours) == pytest.approx(expected / 1.75, rel=1e-5)


def test_a_dictionary_of_predictions_is_in_the_order_of_their_sides() -> None:
    output = Supervised().eval()(torch.rand(1, 3, 16, 16))
    read = OutputReading(Task(), "logits").at_every_resolution(output, (16, 16))
    assert [each.shape[-1] for each in read] == [16, 16, 8, 4]
    assert torch.equal(read[0], output["aux"][-1].sigmoid())
