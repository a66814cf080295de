"""What feeds what among layers: read off the recorded graph, held against what the code of each network does."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unetscope import plots
from unetscope.networks.inspection import inspect
from unetscope.networks.unet import UNet
from unetscope.report.report_data import report_data_of
from unetscope.runs.folder import RunFolder
from unetscope.table.connections import connections
from unetscope.table.records import Layer, Skip


def conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())


class Two(nn.Module):
    """A U-Net of depth 1: 1 and 2 are the encoder and the bottom, 3up, 3 and 4 the decoder, 5 the head."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom, self.up = conv(3, 4), conv(4, 8), nn.ConvTranspose2d(8, 4, 2, 2)
        self.join, self.head, self.aux, self.gate = (
            conv(8, 4),
            nn.Conv2d(4, 1, 1),
            nn.Conv2d(8, 1, 1),
            nn.Conv2d(4, 1, 1),
        )
        self.pool, self.score = nn.MaxPool2d(2), nn.Linear(4, 4)

    def skip(self, x: Tensor, up: Tensor) -> Tensor:
        return x

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.down(image)
        deep = self.bottom(self.pool(x))
        up = self.up(deep)
        return self.head(self.join(torch.cat([up, self.skip(x, up)], 1)))


class Squeezed(Two):
    def skip(self, x: Tensor, up: Tensor) -> Tensor:
        return x * torch.sigmoid(self.score(x.mean((2, 3))))[:, :, None, None]


class Attended(Two):
    def skip(self, x: Tensor, up: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x + up))


class Supervised(Two):
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.down(image)
        deep = self.bottom(self.pool(x))
        return self.head(self.join(torch.cat([self.up(deep), x], 1))), self.aux(deep)


class Summed(Two):
    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image)
        return self.head(self.up(self.bottom(self.pool(x))) + x)


class Twice(Two):
    """Two skips at one join."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.join = conv(4, 4), conv(12, 4)

    def forward(self, image: Tensor) -> Tensor:
        first = self.down(image)
        second = self.second(first)
        up = self.up(self.bottom(self.pool(second)))
        return self.head(self.join(torch.cat([up, first, second], 1)))


# By network: what each layer is made from, as the code says; the way of skip1; the layers of one join.
TRUTH: list[tuple[type[nn.Module], dict[str, tuple[str, ...]], list[tuple[str, str]], list[tuple[str, ...]]]] = [
    (Two, {"1": (), "2": ("1",), "3up": ("2",), "3": ("3up", "1"), "4": ("3",), "5": ("4",)}, [("1", "3")], []),
    (
        Squeezed,
        {"1": (), "2": ("1",), "3up": ("2",), "1mul": ("1",), "3": ("3up", "1mul"), "4": ("3",), "5": ("4",)},
        [("1", "1mul"), ("1mul", "3")],
        [],
    ),
    (
        Supervised,
        {"1": (), "2": ("1",), "3up": ("2",), "3": ("3up", "1"), "4": ("3",), "5": ("4",), "6": ("2",)},
        [("1", "3")],
        [],
    ),
    (Summed, {"1": (), "2": ("1",), "3up": ("2",), "3": ("3up", "1"), "3sum": ("3",), "4": ("3sum",)}, [("1", "3")], []),
    (
        Twice,
        {
            "1": (), "2": ("1",), "3": ("2",), "4up": ("3",), "4a": ("4up", "1"), "4b": ("4up", "2"), "5": ("4a", "4b"),
            "6": ("5",),
        },
        [("1", "4a")],
        [("4a", "4b")],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "sources", "way", "joins"), TRUTH, ids=lambda value: getattr(value, "__name__", "")
)
def test_layers_name_what_the_code_makes_them_from(network, sources, way, joins) -> None:
    structure = inspect(network(), torch.rand(1, 3, 8, 8))
    assert {layer.label: layer.sources for layer in structure.layers} == sources
    joined = connections(structure.layers, structure.skips)
    top = structure.skips[0]
    assert joined.is_recorded
    assert list(joined.of_skip[top.name]) == way
    assert joined.origin(top, structure.layers) == "1"
    assert list(joined.joins) == joins


def test_the_signal_of_an_attention_gate_is_no_skip() -> None:
    structure = inspect(Attended(), torch.rand(1, 3, 8, 8))
    joined = connections(structure.layers, structure.skips)
    (skip,) = structure.skips
    sources = {layer.label: layer.sources for layer in structure.layers}
    assert sources[skip.source] is not None and "1" in sources[skip.source]
    assert joined.origin(skip, structure.layers) == "1"
    assert "3up" not in {start for start, _ in joined.of_skip["skip1"]}
    assert "3up" in {start for start, _ in joined.others}


def test_every_connection_is_drawn_once_and_none_else() -> None:
    for network, sources, *_ in TRUTH:
        structure = inspect(network(), torch.rand(1, 3, 8, 8))
        joined = connections(structure.layers, structure.skips)
        drawn = [*joined.others, *(each for way in joined.of_skip.values() for each in way)]
        assert len(drawn) == len(set(drawn))
        every = {(source, label) for label, made_from in sources.items() for source in made_from}
        collapsed = {("4up", "4b"), ("4a", "5")}  # of layers that are one join
        assert set(drawn) | (every & collapsed) == every


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("without", [(), ("skip1",)])
def test_the_papers_network_says_of_itself_what_is_recorded(depth, without) -> None:
    network = UNet(2, depth=depth, without=without)
    recorded = {layer.label: layer.sources for layer in inspect(network, torch.rand(1, 3, 16, 16)).layers}
    own = {layer.label: layer.sources for layer in network.layers}
    shared = set(recorded) & set(own)
    assert len(shared) >= len(recorded) - len(without)
    if not without:
        assert own == recorded


def test_layers_without_sources_follow_their_order() -> None:
    layers = [Layer("1", "a"), Layer("2", "b"), Layer("3up", "c"), Layer("3", "d", role="merge", parts=("3up", "1"))]
    skip = Skip("skip1", "1", "3up", "3")
    unknown = connections(layers, [skip])
    assert not unknown.is_recorded
    assert unknown.others == (("1", "2"), ("2", "3up"), ("3up", "3"))
    assert unknown.of_skip == {"skip1": (("1", "3"),)}
    note = "grey arrows: the order of the layers; what feeds what is not recorded"
    assert note in plots.architecture(layers, [skip]).get_title()
    partly = [Layer("2", "b", sources=("1",)), Layer("3", "c", sources=("2",))]  # layer 1 is not measured
    assert not connections(partly, []).is_recorded


def test_a_run_keeps_what_its_layers_are_made_from_and_an_older_one_opens(tmp_path: Path) -> None:
    structure = inspect(Squeezed(), torch.rand(1, 3, 8, 8))
    layers = (*structure.layers[:-1], Layer("x", "named by hand"))
    run = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    run.describe(layers, structure.skips, [])
    kept = RunFolder.open(run.path).flow().layers
    assert [layer.sources for layer in kept] == [layer.sources for layer in layers]

    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        tables.execute("DELETE FROM digests WHERE name = 'layers'")  # which format 8 would have without the column
        tables.execute("ALTER TABLE layers DROP COLUMN sources")
        tables.execute("ALTER TABLE estimates DROP COLUMN dice")
        tables.execute("PRAGMA user_version = 8")
    older = RunFolder.open(run.path)
    assert [layer.sources for layer in older.flow().layers] == [None] * len(layers)
    assert older.flow().layers == layers, "it is taken for a run of another network"
    assert report_data_of(older)["connections_recorded"] is False
    older.describe(structure.layers, structure.skips, [])
    again = RunFolder.open(run.path).flow().layers
    assert [layer.sources for layer in again[:-1]] == [layer.sources for layer in structure.layers[:-1]]
    assert report_data_of(run)["skips"][0]["origin"] == "1"


def test_sources_that_are_none_are_refused(tmp_path: Path) -> None:
    from unetscope.base.errors import RunFolderError

    run = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    run.describe([Layer("1", "a", sources=())], [], [])
    for wrong in ("7", "[1]", '{"a": 1}', '"1"', "[null]"):
        with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
            tables.execute("DELETE FROM digests")
            tables.execute("UPDATE layers SET sources = ?", (wrong,))
        with pytest.raises(RunFolderError, match="expected a layer"):
            RunFolder.open(run.path).flow()


def test_a_gated_skip_is_drawn_from_the_encoder() -> None:
    structure = inspect(Squeezed(), torch.rand(1, 3, 8, 8))
    axes = plots.architecture(structure.layers, structure.skips)
    boxes = {
        layer.label: (box.get_x(), box.get_x() + box.get_width())
        for layer, box in zip(structure.layers, axes.patches, strict=True)
    }
    (left, right), (start, end) = boxes["1"], boxes["1mul"]
    line = max(
        (line for line in axes.get_lines() if line.get_linewidth() == 1.0), key=lambda each: len(each.get_xdata())
    )
    assert left <= line.get_xdata()[0] <= right and start <= line.get_xdata()[-1] <= end
    (name,) = [text for text in axes.texts if text.get_text() == "skip1"]
    assert right < name.get_position()[0] < start
