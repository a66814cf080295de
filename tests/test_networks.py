"""Any network: its structure is detected and its layers are measured."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from calibration.planted import PlantedTask, planted_task
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_iter

import foreign
import network_builders
import published
import unetscope as us
from foreign import random_image
from unetscope.activations.capture import with_shapes
from unetscope.base.errors import NetworkError
from unetscope.networks.ablation import ablated
from unetscope.networks.inspection import inspect
from unetscope.networks.surgery import without_skips
from unetscope.networks.unet import UNet


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("without", [(), ("skip1",)])
def test_what_is_found_in_the_papers_network_is_what_it_says_of_itself(depth: int, without: tuple[str, ...]) -> None:
    model, image = UNet(2, depth, without=without), random_image(3, 32, 32)
    structure = inspect(model, image)
    own = with_shapes(model, model.layers, image)
    joined = [
        layer for layer in own if len(layer.parts) != 1
    ]  # where a skip is out, the merge is the upsampled path again
    assert [(a.label, a.level, a.role, a.parts, a.shape) for a in structure.layers] == [
        (a.label, a.level, a.role, a.parts, a.shape) for a in joined
    ] or without
    assert {(s.source, s.upsampled, s.merge) for s in structure.skips} == {
        (s.source, s.upsampled, s.merge) for s in model.skips
    } or without
    assert len(structure.skips) == depth - len(without)
    assert [layer.shape for layer in structure.layers if layer.role != "merge"] == [
        layer.shape for layer in joined if layer.role != "merge"
    ]


@pytest.mark.parametrize(
    ("build", "shape", "merges", "kinds"),
    [
        (foreign.Padded, (3, 40, 56), 3, {"cat"}),
        (foreign.Padded, (3, 33, 47), 3, {"cat"}),
        (foreign.Cropped, (1, 92, 92), 2, {"cat"}),
        (foreign.Supervised, (3, 32, 32), 3, {"cat"}),
        (foreign.SubPixel, (1, 16, 16), 1, {"add"}),
        (foreign.Deciding, (3, 32, 32), 3, {"cat"}),
        (foreign.Residual, (1, 16, 16), 0, set()),
    ],
)
def test_merges_of_networks_written_by_hand(
    build: Callable[[], nn.Module], shape: tuple[int, ...], merges: int, kinds: set[str]
) -> None:
    torch.manual_seed(0)
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    structure = inspect(model, random_image(*shape))
    assert (len(structure.merges), {merge.kind for merge in structure.merges}) == (merges, kinds)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    with_shapes(model, structure.layers, random_image(*shape))  # each can be captured at its place
    assert [layer.role for layer in structure.layers].count("output") == 1
    assert [skip.name for skip in structure.skips] == [f"skip{k}" for k in range(1, merges + 1)]


class PaddedUp(nn.Module):
    """A transposed convolution, padded to the grid of the skip, as in MONAI's BasicUNet."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down(images).relu()
        risen = self.up(self.bottom(functional.max_pool2d(fine, 2)).relu())
        return self.out(torch.cat([fine, functional.pad(risen, (0, 1, 0, 1), "replicate")], 1))


def test_what_rises_is_of_the_decoder_before_a_skip_joins_it() -> None:
    structure = inspect(PaddedUp(), random_image(1, 17, 17))
    roles = [(layer.label, layer.role) for layer in structure.layers]
    assert roles == [
        ("1", "encoder"), ("2", "bottom"), ("3", "decoder"), ("4up", "upsampled"), ("4", "merge"), ("5", "output")
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["stacked", "mean", "by name", "largest", "difference", "channel"])
def test_ways_to_join(how: str) -> None:
    torch.manual_seed(0)
    model, images = foreign.Joined(how), torch.rand(2, 1, 16, 16)
    structure = inspect(model, images[:1])
    assert [skip.source for skip in structure.skips] == ["1"]
    assert len(structure.merges) == 1
    with torch.no_grad():
        with ablated(model, structure, "skip1"):
            silent = model(images)
        assert not torch.equal(model(images), silent)
        removed = without_skips(model, structure, "skip1")(images)
    torch.testing.assert_close(removed, silent)


def test_a_network_in_which_none_is_found_says_why() -> None:
    assert str(inspect(foreign.Residual(), random_image(1, 16, 16))).endswith(
        "No skip joins an upsampled path: there is nothing for verdicts to judge"
    )


@pytest.mark.long
def test_a_network_is_looked_into_as_it_is_distributed_or_compiled() -> None:
    model, image = foreign.Padded(), random_image(3, 32, 32)
    wrapped = nn.DataParallel(model), torch.compile(model)
    for wrapper in wrapped:
        assert inspect(wrapper, image).layers == inspect(model, image).layers


def compiled(function: Callable[..., object]) -> Callable[..., object]:
    return torch.compile(function, backend="eager")  # what it gives is as opaque as any other


class Joining(foreign.Padded):
    """Padded, with its blocks called through a method, as a name that can be bound to something else."""

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        return super().forward(x)


def in_place(model: Joining) -> None:
    model.compile(backend="eager")


def forward_of_the_network(model: Joining) -> None:
    model.forward = compiled(model.forward)  # type: ignore[method-assign]


def forward_in_one_graph(model: Joining) -> None:
    model.forward = torch.compile(model.forward, backend="eager", fullgraph=True)  # type: ignore[method-assign]


def forward_of_a_part(model: Joining) -> None:
    model.up[1].forward = compiled(model.up[1].forward)
    model.down[0][0].forward = compiled(model.down[0][0].forward)


def part(model: Joining) -> None:
    model.up[1] = compiled(model.up[1])


def method_by_another_name(model: Joining) -> None:
    model.run = compiled(super(Joining, model).forward)  # type: ignore[method-assign]


def partial_forward(model: Joining) -> None:
    model.forward = functools.partial(Joining.forward, model)  # type: ignore[method-assign]


def partial_of_a_compiled_forward(model: Joining) -> None:
    model.forward = functools.partial(compiled(Joining.forward), model)  # type: ignore[method-assign]


def not_to_be_compiled(model: Joining) -> None:
    model.up[0] = torch.compiler.disable(model.up[0])
    model.up[1].forward = torch.compiler.disable(model.up[1].forward)
    model.forward = compiled(model.forward)  # type: ignore[method-assign]


@pytest.mark.long
@pytest.mark.parametrize(
    "change",
    [in_place, forward_of_the_network, forward_in_one_graph, forward_of_a_part, part, method_by_another_name,
     partial_forward, partial_of_a_compiled_forward, not_to_be_compiled],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_a_compiled_network_is_measured_as_it_was_written(change: Callable[[Joining], None]) -> None:
    data, image = us.synthetic_nuclei(3, image_size=16), random_image(3, 16, 16)
    options = {"estimators": [us.Binning()], "labels": []}
    torch.manual_seed(0)
    model = Joining(width=2).eval()
    plain, structure = us.Scope(model, data, **options).measure(0), inspect(model, image)
    with torch.no_grad(), ablated(model, structure, "skip1"):
        silent = model(image)
    change(model)
    before = [module._compiled_call_impl for module in model.modules()], dict(vars(model))
    assert [row.bits for row in us.Scope(model, data, **options).measure(0)] == [row.bits for row in plain]
    assert [skip.name for skip in inspect(model, image).skips] == ["skip1", "skip2", "skip3"]
    with torch.no_grad(), ablated(model, structure, "skip1"):
        torch.testing.assert_close(model(image), silent)
    assert before == ([module._compiled_call_impl for module in model.modules()], dict(vars(model)))


def test_streams_are_told_apart_whichever_stands_whole() -> None:
    structure = inspect(foreign.Padded(), random_image(3, 32, 32))
    layers = {layer.label: layer for layer in structure.layers}
    for skip, side, channels in zip(structure.skips, (32, 16, 8), (4, 8, 16), strict=True):
        assert layers[skip.source].shape == (channels, side, side)
        assert layers[skip.upsampled].shape == (2 * channels, side, side)
        assert layers[skip.merge].shape == (3 * channels, side, side)
        assert layers[skip.upsampled].module.endswith((":pad", ":pad#2", ":pad#3"))


@pytest.mark.long
def test_the_layers_of_a_found_network_are_measured() -> None:
    data = us.synthetic_nuclei(12, image_size=32)
    train, held_out = data.split(0.5)
    scope = us.Scope(foreign.Padded(), train, labels=[us.KMeansLabels(2)], held_out=held_out)
    estimates = scope.measure(0)
    assert {skip.name for skip in scope.skips} == {"skip1", "skip2", "skip3"}
    assert {e.quantity for e in estimates} >= {"I(X;M)", "I(Y;S|U)", "I_V(M→Y)", "I_V(S→Y|U,↓S)"}
    assert {e.layer for e in estimates} == {layer.label for layer in scope.layers}
    whole = us.Scope(nn.DataParallel(scope.model), train, labels=[us.KMeansLabels(2)])
    assert whole.layers == scope.layers


def test_a_call_is_measured_as_the_module_that_gives_it_out() -> None:
    """The same tensor by its two names, and not those that measuring itself makes."""
    data = us.synthetic_nuclei(6, image_size=16)
    model = foreign.Padded(width=2)
    by_module = us.Scope(model, data, layers=["down.0", "up.2"], labels=[])
    by_call = us.Scope(
        model,
        data,
        layers=[us.table.Layer("down.0", "down.0.6:relu"), us.table.Layer("up.2", "up.2.6:relu")],
        labels=[],
    )
    mixed = us.Scope(
        model, data, layers=[us.table.Layer("down.0", "down.0"), us.table.Layer("up.2", "up.2.6:relu")], labels=[]
    )
    rows = [[(e.layer, e.quantity, e.bits) for e in scope.measure(0)] for scope in (by_module, by_call, mixed)]
    assert rows == [rows[0]] * 3


def test_what_cannot_be_inspected_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"Padded does not run on an example \[1, 1, 32, 32\]: .*expected input"):
        inspect(foreign.Padded(), random_image(1, 32, 32))
    with pytest.raises(NetworkError, match="the example must be a tensor"):
        inspect(foreign.Padded(), "image")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Conv2d(3, 1, 1))
    with pytest.raises(NetworkError, match="Conv2d is scripted as a whole and cannot be looked into"):
        inspect(scripted, random_image(3, 32, 32))


# Published networks.

TABLES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (Path(__file__).parents[1] / "docs" / "networks.md").read_text().splitlines()
    if line.startswith("| ")
]
MERGES = {cells[0]: cells for cells in TABLES if len(cells) == 9}
PARTS = {cells[0]: cells for cells in TABLES if len(cells) == 10}
QUICK = {
    "nnU-Net PlainConvUNet, 2-D", "MONAI BasicUNet, 2-D", "unet UNet1D", "by hand: padded, in place, dropout",
    "by hand: cropped", "by hand: several outputs", "by hand: sub-pixels, gated sum",
}  # fmt: skip


@pytest.fixture(
    params=[
        pytest.param(network, id=network.name, marks=[pytest.mark.slow] * (network.name not in QUICK))
        for network in published.NETWORKS
    ]
)
def network(request: pytest.FixtureRequest) -> published.Published:
    network: published.Published = request.param
    if network.missing:
        pytest.skip(f"{network.missing} is not installed")
    return network


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_published_networks(network: published.Published) -> None:
    """Every merge of the source is detected, its streams are captured, and its skips are ablated and removed."""
    torch.manual_seed(0)
    model, image = network.build().eval(), random_image(*network.shape)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    page, notes = MERGES[network.name], MERGES[network.name][8]
    if notes == "not run":
        pytest.skip("the page does not have it")
    if notes.startswith("refused: "):
        with pytest.raises(NetworkError):
            inspect(model, image)
        return
    structure = inspect(model, image)
    stages = " (stages)" if structure.detail == "stages" else ""
    row = [
        f"{len(structure.merges)} of {network.merges}",
        f"{len(structure.skips)} of {network.source_skips}",
        network.why,
        f"{len(structure.layers)}{stages}",
    ]
    assert [page[k] for k in (2, 3, 4, 6)] == row, "make_networks.py writes docs/networks.md anew"
    assert (len(structure.merges), len(structure.skips)) == (network.merges, network.source_skips) or notes != "—"
    layers = with_shapes(model, structure.layers, image)
    assert [layer.shape for layer in layers] == [layer.shape for layer in structure.layers]
    us.plots.architecture(structure.layers, structure.skips)
    for skip in structure.skips[:1]:  # make_networks.py tries all
        is_removed = _check_removed_as_silenced(model, structure, skip.name, random_image(*network.shape, seed=1))
        count, of_skips = PARTS[network.name][1].split(" of ")
        assert is_removed == (count == of_skips) or 0 < int(count) < int(of_skips)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def _check_removed_as_silenced(model: nn.Module, structure: us.networks.Structure, skip: str, image: Tensor) -> bool:
    """Whether a skip can be removed. It is compared with the same skip silenced, on an image that is new."""
    whole = _whole(model(image))
    with ablated(model, structure, skip):
        silent = _whole(model(image))
    assert not torch.equal(whole, silent)
    assert torch.equal(whole, _whole(model(image)))  # as before
    try:
        removed = without_skips(model, structure, skip)
    except NetworkError as refusal:
        assert "ablate it instead" in str(refusal)
        return False
    torch.testing.assert_close(_whole(removed(image)), silent, atol=1e-4, rtol=1e-3)
    return True


def _whole(output: object) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tree_iter(output) if isinstance(tensor, Tensor)])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_exported_program_has_the_same_merges(network: published.Published) -> None:
    """Another recording of the network, by torch.export, at the places that were structure here."""
    torch.manual_seed(0)
    model, image = network.build().eval(), random_image(*network.shape)
    structure = inspect(model, image)
    try:
        program = torch.export.export(model, (image,), strict=False)
    except Exception as refusal:
        pytest.skip(f"torch.export refuses it: {type(refusal).__name__}")
    operations = {"cat": "cat", "add": ("add", "sum"), "mul": "mul", "mean": "mean"}
    calls = [node for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    if any(
        not all(isinstance(side, int) for side in node.meta["val"].shape)
        for node in calls
        if "val" in node.meta and isinstance(node.meta["val"], Tensor)
    ):
        pytest.skip("torch.export finds sizes that depend on values")
    for merge in structure.merges:  # modules may go by other names there
        shape, names = structure.graph[merge.node].shape, operations[merge.kind]
        alike = [
            node
            for node in calls
            if node.target.overloadpacket.__name__.rstrip("_").startswith(names)
            and tuple(node.meta["val"].shape) == shape
        ]
        same = [m for m in structure.merges if m.kind == merge.kind and structure.graph[m.node].shape == shape]
        assert len(alike) >= len(same), merge.address


# Verdicts.


def judged(
    task: str, model: nn.Module, images_of: int = 300, epochs: int = 16
) -> tuple[PlantedTask, us.analysis.Judgement]:
    """A network trained on a planted task in a plain loop, and its verdicts."""
    torch.set_num_threads(1)
    planted = planted_task(task, images_of, seed=0)
    train, held_out = planted.data.split(0.25, seed=0)
    images, masks = torch.from_numpy(train.images) / 255, torch.from_numpy(train.masks)[:, None].float()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    scope = us.Scope(model, train, estimators=[], labels=[], held_out=held_out)
    for epoch in range(1, epochs + 1):
        model.train()
        for rows in torch.randperm(len(images)).split(8):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(images[rows]), masks[rows]).backward()
            optimizer.step()
        if epoch in (epochs // 2, epochs):
            scope.measure(epoch)
    return planted, us.judge(scope.flow)


@pytest.mark.long
@pytest.mark.parametrize(
    ("task", "width", "images_of", "epochs"),
    [
        ("pixel", 4, 100, 12),  # the quick version
        *(pytest.param(task, 8, 300, 16, marks=pytest.mark.slow) for task in ("pixel", "coarse", "global", "local")),
    ],
)
def test_planted_tasks_are_judged_rightly_in_a_network_written_by_hand(
    task: str, width: int, images_of: int, epochs: int
) -> None:
    torch.manual_seed(0)
    planted, judgement = judged(task, foreign.Padded(1, 1, width), images_of, epochs)
    assert {part: judgement.decision(part) for part in planted.needed} == dict.fromkeys(planted.needed, "needed")
    assert {part: judgement.decision(part) for part in planted.redundant} == dict.fromkeys(
        planted.redundant, "redundant"
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["pixel", "coarse", "local", "global"])
def test_planted_tasks_are_judged_rightly_in_monais_network(task: str) -> None:
    """Instance normalisation shows every layer the mean of the whole image, so that the task that needs it needs no depth here.

    Four 3×3 convolutions at full resolution with InstanceNorm learnt that task (0.07 nats a pixel held out), with BatchNorm
    they did not (0.43).
    """
    pytest.importorskip("monai", reason="monai is an extra")
    torch.manual_seed(0)
    model = network_builders.monai(
        "BasicUNet", spatial_dims=2, in_channels=1, out_channels=1, features=(8, 16, 32, 32, 32, 8)
    )()
    planted, judgement = judged(task, model)
    needed, redundant = planted.needed, planted.redundant
    if task == "global":
        needed, redundant = (), planted.needed
    assert {part: judgement.decision(part) for part in needed} == dict.fromkeys(needed, "needed")
    assert {part: judgement.decision(part) for part in redundant} == dict.fromkeys(redundant, "redundant")
