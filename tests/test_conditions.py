"""Several skips at one level, and what is told to a network on the way up: conditions hide no merge, and are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import unetscope as us
from foreign import random_image
from unetscope.activations.capture import with_shapes
from unetscope.base.errors import NetworkError
from unetscope.networks.inspection import inspect
from unetscope.networks.structure import GapKind, Structure
from unetscope.table import Estimate, Layer, Part, Skip

IMAGE = random_image(3, 16, 16)


class Conditioned(nn.Module):
    """Two skips at the top level, and a condition before each merge and in the encoder. Two merges."""

    def __init__(self, condition: Callable[[Conditioned, Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.condition = condition
        self.e0, self.e1 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.down, self.up = nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)
        self.d0, self.d1, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.embed, self.pooled = nn.Linear(1, 4), nn.Conv2d(4, 4, 1)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x: Tensor, extra: Any = None) -> Tensor:
        """[b, 3, h, w] to logits."""
        a = self.e0(x)
        b = self.e1(self.condition(self, a, extra))
        u = self.condition(self, self.up(self.down(b).relu()), extra)
        y = self.condition(self, self.d0(torch.cat([u, b], 1)).relu(), extra)
        return self.out(self.d1(torch.cat([y, a], 1)))


def vector(net: Conditioned, extra: Tensor) -> Tensor:
    """The embedding of a time step or a vector, [b, 4, 1, 1]."""
    return net.embed(extra.float().reshape(-1, 1))[:, :, None, None]


def modulated(net: Conditioned, h: Tensor, extra: Tensor) -> Tensor:
    scale, shift = vector(net, extra).exp(), vector(net, extra)
    return h * (1 + scale) + shift


def concatenated(net: Conditioned, h: Tensor, extra: Tensor) -> Tensor:
    map_ = vector(net, extra).expand(-1, -1, *h.shape[2:])
    return torch.cat([h, map_], 1)[:, :4]


def context(h: Tensor, net: Conditioned) -> Tensor:
    return net.pooled(h.mean((2, 3), keepdim=True)).relu()


def attended(net: Conditioned, h: Tensor, tokens: Tensor) -> Tensor:
    query = h.flatten(2).mT
    return h + net.attention(query, tokens, tokens)[0].mT.reshape(h.shape)


TOKENS = torch.rand(1, 5, 4)
CONDITIONS: dict[str, tuple[Any, Callable[[Conditioned, Tensor, Any], Tensor]]] = {
    "time, integer": (torch.tensor([3]), lambda net, h, t: h + vector(net, t)),
    "time, float": (torch.tensor([3.0]), lambda net, h, t: h + vector(net, t)),
    "time, double": (torch.tensor([3.0], dtype=torch.float64), lambda net, h, t: h + vector(net, t)),
    "time, scaling": (torch.tensor([3]), modulated),
    "time, number": (3, lambda net, h, t: h + vector(net, torch.tensor([t]))),
    "clinical vector, in a map": (torch.rand(1), concatenated),
    "clinical vector, in place": (torch.rand(1), lambda net, h, v: h.add_(vector(net, v))),
    "vector, as a map": (
        torch.rand(1, 16),
        lambda _, h, v: h + functional.interpolate(v.view(-1, 1, 4, 4) * 2, h.shape[2:]),
    ),
    "vector, as a map of both": (
        torch.rand(1, 16),
        lambda _, h, v: h * (1 + functional.interpolate(v.reshape(-1, 1, 2, 8), h.shape[2:], mode="bilinear")),
    ),
    "context, broadcast": (None, lambda net, h, _: h + context(h, net)),
    "context, expanded": (None, lambda net, h, _: h + context(h, net).expand_as(h)),
    "context, repeated": (None, lambda net, h, _: h + context(h, net).repeat(1, 1, *h.shape[2:])),
    "context, interpolated": (None, lambda net, h, _: h + functional.interpolate(context(h, net), h.shape[2:])),
    "context, adaptive": (None, lambda net, h, _: h * functional.adaptive_avg_pool2d(h, 1).sigmoid()),
    "normalised by hand": (None, lambda net, h, _: (h - h.mean((2, 3), keepdim=True)) / h.std((2, 3), keepdim=True)),
    "tokens": (TOKENS, attended),
    "group norm": (None, lambda net, h, _: functional.group_norm(h, 2)),
}


def sources(structure: Structure) -> list[tuple[str, str]]:
    places = {layer.label: layer.module for layer in structure.layers}
    return [(skip.name, places[skip.source]) for skip in structure.skips]


@pytest.mark.parametrize("how", CONDITIONS)
def test_a_condition_neither_hides_a_merge_nor_is_one(how: str) -> None:
    extra, condition = CONDITIONS[how]
    model = Conditioned(condition)
    example = IMAGE if extra is None else (IMAGE, extra)
    structure = inspect(model, example)
    assert sources(structure) == [("skip1a", "e0" if how != "clinical vector, in place" else ":add"), ("skip1b", "e1")]
    assert [merge.kind for merge in structure.merges] == ["cat", "cat"]
    assert structure.kernels == 7 + 3 * ("context" in how and "adaptive" not in how)
    assert not structure.gaps


class Stages(nn.Module):
    """So many skips at each of two levels. counts: from the top down."""

    def __init__(self, counts: tuple[int, int]) -> None:
        super().__init__()
        self.counts = counts
        self.enter, self.down = nn.Conv2d(3, 2, 1), nn.MaxPool2d(2)
        self.encoders = nn.ModuleList(nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(n)) for n in counts)
        self.decoders = nn.ModuleList(nn.ModuleList(nn.Conv2d(4, 2, 1) for _ in range(n)) for n in counts)
        self.up = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        """[b, 3, h, w] to two channels."""
        x, kept = self.enter(x), []
        for encoders in self.encoders:
            for encoder in encoders:
                kept.append(x := encoder(x).relu())
            x = self.down(x)
        for decoders in reversed(self.decoders):
            x = self.up(x)
            for decoder in decoders:
                x = decoder(torch.cat([x, kept.pop()], 1)).relu()
        return x


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        ((1, 1), "skip1 skip2"),
        ((2, 1), "skip1a skip1b skip2"),
        ((1, 2), "skip1 skip2a skip2b"),
        ((3, 2), "skip1a skip1b skip1c skip2a skip2b"),
        ((28, 1), " ".join(f"skip1{letter}" for letter in [*"abcdefghijklmnopqrstuvwxyz", "aa", "ab"]) + " skip2"),
    ],
)
def test_skips_of_one_level_have_letters_from_the_last_that_joins(counts: tuple[int, int], names: str) -> None:
    structure = inspect(Stages(counts), IMAGE, detail="kernels")
    assert [skip.name for skip in structure.skips] == names.split()
    assert [skip.part for skip in structure.skips] == sorted(Part.named(name) for name in names.split())
    assert [skip.source for skip in structure.skips[: counts[0]]] == [f"{k + 2}" for k in range(counts[0])]
    assert {structure.merge_of(name).kind for name in names.split()} == {"cat"}


@pytest.mark.long
@pytest.mark.parametrize("level", ["level1a", "level1b", "level1c", "level2a", "level2b"])
def test_levels_of_several_merges_are_left_out_by_their_letters(level: str) -> None:
    torch.manual_seed(0)
    model, new = Stages((3, 2)).eval(), torch.rand(2, 3, 16, 16)
    structure = inspect(model, torch.rand(1, 3, 16, 16), detail="kernels")
    with torch.no_grad():
        with us.networks.ablated(model, structure, level):
            silent = model(new)
        torch.testing.assert_close(us.without(model, structure, level).eval()(new), silent)
    letters = {"level1": "level1c", "level2": "level2b"}  # without a letter, the first merge of the level that runs
    assert structure.stream_of(level[:6]) == structure.stream_of(letters[level[:6]])
    with pytest.raises(NetworkError, match="Stages has no 'level1d'"):
        structure.stream_of("level1d")


@pytest.mark.long
def test_verdicts_tables_and_figures_carry_letters() -> None:
    torch.manual_seed(0)
    train, held_out = us.synthetic_nuclei(16, image_size=16).split(0.5)
    network = nn.Sequential(Stages((2, 1)), nn.Conv2d(2, 1, 1))
    scope = us.Scope(network, train, held_out=held_out, estimators=[], labels=[])
    for epoch in (1, 2):
        scope.measure(epoch)
    judgement = us.judge(scope.flow)
    parts = ["skip1a", "skip1b", "skip2", "level1a", "level1b", "level2"]
    assert sorted({str(verdict.part) for verdict in judgement if verdict.rule == "conditional"}) == sorted(parts)
    assert judgement.without == ()
    assert judgement.decision("level1b") in {"needed", "redundant", "undecided"}
    assert {row.layer for row in scope.flow.estimates} >= {skip.merge for skip in scope.skips}
    us.plots.architecture(scope.layers, scope.skips)


def test_skips_of_one_merge_are_not_in_the_path_that_they_meet() -> None:
    """What the upsampled stream adds to one skip of a merge bounds no other skip there, which does not come up with it."""
    layers = [Layer("1", "a"), Layer("2", "b"), Layer("3", "c", 1, "bottom")]
    layers += [Layer(f"4{k}", "cat", 0, "merge", ("3", source)) for k, source in (("a", "1"), ("b", "2"))]
    skips = Skip("skip1a", "1", "3", "4a"), Skip("skip1b", "2", "3", "4b")
    added = {
        ("4a", "I_V(S→Y|U,↓S)"): 0.3,
        ("4a", "I_V(U→Y|S)"): 0.001,
        ("4b", "I_V(S→Y|U,↓S)"): 0.3,
        ("4b", "I_V(U→Y|S)"): 0.001,
    }
    rows = [
        Estimate(epoch, layer, quantity, "usable_convolutional", 0, "pixels", bits, bits, bits, 0.6, False, 9, 9,
                 low=bits - 0.001, high=bits + 0.001)
        for epoch in (1, 10) for (layer, quantity), bits in added.items()
    ]  # fmt: skip
    judgement = us.judge(us.Flow(tuple(layers), skips, tuple(rows)))
    assert judgement.decision("skip1b") == "needed"
    assert judgement.decision("level1b") == "redundant"


class Output(nn.Module):
    """Two levels, and an output of another form."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.form, self.net = form, Stages((1, 1))
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Any:
        """What the form makes of the logits."""
        return self.form(self.head(self.net(x)))


@dataclass
class Outputs:
    """What transformers and diffusers return."""

    loss: float
    sample: Tensor | None = None


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "squeezed": lambda y: y.squeeze(1),
    "flat": lambda y: y.flatten(1),
    "argmax": lambda y: torch.cat([y, -y], 1).argmax(1),
    "thresholded": lambda y: (y.sigmoid() > 0.5)[:, 0],
    "another axis": lambda y: y.view(y.shape[0], 1, 1, *y.shape[2:]),
    "channels last": lambda y: y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, 1),
    "dataclass": lambda y: Outputs(0.0, sample=y),
    "dictionary": lambda y: {"out": [y]},
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_of_every_form_are_followed(form: str) -> None:
    structure = inspect(Output(FORMS[form]), IMAGE)
    assert [skip.name for skip in structure.skips] == ["skip1", "skip2"]
    assert [layer.role for layer in structure.layers].count("output") == 1
    with_shapes(Output(FORMS[form]), structure.layers, IMAGE)


def test_an_output_without_places_is_refused_with_its_shape() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(1, 2)

    with pytest.raises(
        NetworkError, match="Constant gives out 1×2, made from no tensor with a place for every one of"
    ) as error:
        inspect(Constant(), IMAGE)
    assert "inspect the part of it that maps images to masks, or a module of a few lines" in str(error.value)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_merges_of_merges_have_labels_of_their_own(order: tuple[int, ...]) -> None:
    class Last(nn.Module):
        """Concatenates what it has joined with what it has upsampled, and with its first layer."""

        def __init__(self) -> None:
            super().__init__()
            self.enter, self.down = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2, 2)
            self.leave = nn.Conv2d(16, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.enter(x)
            up = functional.interpolate(self.down(a.relu()), scale_factor=2.0)
            joined = torch.cat([up, a.relu()], 1)
            return self.leave(torch.cat([(joined.tanh() * joined, up, a)[k] for k in order], 1))

    labels = [layer.label for layer in inspect(Last(), IMAGE).layers]
    assert len(set(labels)) == len(labels)


def test_convolutions_that_lead_nowhere_are_said() -> None:
    class Cut(Stages):
        """What is below the top level is computed for nothing."""

        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            return self.enter(x)

    structure = inspect(Cut((2, 2)), IMAGE)
    assert [gap.kind for gap in structure.gaps] == [GapKind.NO_OUTPUT]
    assert (
        structure.why_no_merge
        == "No merge is found, but the network could not be followed everywhere: skips may be missing"
    )
    assert "lead to no output, the last of them decoders.0.1" in str(structure)


class Branched(nn.Module):
    """A branch with its own convolution joins the top of a network: module, and what it makes of the network's input."""

    def __init__(self, convolution: nn.Module, branch: Callable[[nn.Module, Tensor], Tensor], sides: int) -> None:
        super().__init__()
        kernel = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[sides - 1]
        self.enter, self.down, self.leave = kernel(1, 2, 1), kernel(2, 2, 2, 2), kernel(2, 1, 1)
        self.side, self.branch = convolution, branch

    def forward(self, x: Tensor) -> Tensor:
        a = self.enter(x)
        up = functional.interpolate(self.down(a.relu()), size=a.shape[2:])
        return self.leave(a + up + self.branch(self.side, x))


def spectrogram(side: nn.Module, x: Tensor) -> Tensor:
    spectrum = torch.stft(x[:, 0], 8, return_complex=True, window=torch.ones(8))
    changed = spectrum * side(spectrum.abs()[:, None])[:, 0]
    return torch.istft(changed, 8, length=x.shape[-1], window=torch.ones(8))[:, None]


BRANCHES = {
    "of a spectrogram": (nn.Conv2d(1, 1, 1), spectrogram, 1),
    "of rows": (nn.Conv1d(1, 1, 1), lambda side, x: x + side(x.mean(3))[..., None], 2),
    "of tokens": (nn.Conv1d(1, 1, 1), lambda side, x: side(x.flatten(2)).unflatten(2, x.shape[2:]), 2),
    "of slices": (nn.Conv2d(1, 1, 1), lambda side, x: side(x.transpose(1, 2).flatten(0, 1))[None, :, 0], 3),
    "of a stack": (nn.Conv3d(1, 1, 1), lambda side, x: side(torch.stack([x, x], 2))[:, :, 0], 2),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_convolutions_on_other_axes_than_the_images_are_said(name: str) -> None:
    model = Branched(*BRANCHES[name])
    structure = inspect(model, torch.rand(1, 1, *(16,) * BRANCHES[name][2]))
    sides = {"of a spectrogram": 2, "of rows": 1, "of tokens": 1, "of slices": 2, "of a stack": 3}[name]
    gap = next(gap for gap in structure.gaps if gap.kind is GapKind.OTHER_AXES)
    assert (gap.place, gap.may_hide_skips) == ("side", True)
    assert (
        f"1 convolutions that lead to the output do not have the axes of the image, the first of them side with {sides} "
        in str(structure)
    )


def test_convolutions_of_a_gate_may_have_other_axes() -> None:
    """As those of efficient channel attention, which run over the channels."""
    attention = BRANCHES["of rows"][0], lambda side, x: x * side(x.mean((2, 3))[:, None])[:, 0, :, None, None].sigmoid()
    assert inspect(Branched(*attention, 2), torch.rand(1, 1, 16, 16)).gaps == ()


def test_what_only_weighs_is_said() -> None:
    class Weighing(Stages):
        """The decoder is a gate."""

        def forward(self, x: Tensor) -> Tensor:
            a = self.enter(x)
            return self.encoders[0][0](a) * self.up(self.encoders[0][1](self.down(a))).sigmoid()

    structure = inspect(Weighing((2, 1)), IMAGE)
    assert [(gap.kind, gap.place) for gap in structure.gaps] == [(GapKind.GATE_ONLY, ":mul")]
    assert "No skip joins" not in str(structure)


@pytest.mark.parametrize(
    "lazy",
    [
        nn.LazyConv2d(2, 1),
        nn.LazyBatchNorm2d(),
        nn.LazyInstanceNorm2d(affine=True),
        nn.LazyLinear(16),
        nn.LazyConvTranspose2d(2, 1),
    ],
)
def test_lazy_modules_are_refused_by_name(lazy: nn.Module) -> None:
    with pytest.raises(NetworkError, match=r"1 \(Lazy\w+\) has no weights yet: run the network once on an example"):
        inspect(nn.Sequential(nn.Conv2d(3, 2, 1), lazy), IMAGE)


@pytest.mark.parametrize("how", ["a gate", "another library"])
def test_no_claim_is_made_where_streams_meet_unseen(how: str) -> None:
    class Unseen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
            self.up, self.leave = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(4, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skip = torch.relu(self.enter(x))
            up = self.up(torch.relu(self.down(skip)))
            if how == "a gate":
                return self.leave(up * torch.sigmoid(skip))
            joined = torch.zeros_like(up)
            joined.numpy()[...] = (up + skip).detach().numpy()
            return self.leave(joined)

    structure = inspect(Unseen(), torch.rand(1, 3, 16, 16))
    assert structure.gaps
    assert "skips may be missing" in structure.why_no_merge
