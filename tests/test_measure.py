from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from twins import slow_binning, slow_kde, slow_squared_distances
from unetscope.activations.capture import Block
from unetscope.activations.inference import eval_mode
from unetscope.activations.memory import FEATURES_AT_ONCE, Slice
from unetscope.base.errors import InvalidArgument, MeasurementError, NetworkError
from unetscope.data.segmentation import SegmentationData
from unetscope.data.synthetic import synthetic_nuclei
from unetscope.estimators import interface
from unetscope.estimators.binning import Binning
from unetscope.estimators.families import Convolutional, Linear
from unetscope.estimators.interface import LayerStatistics, Pairwise
from unetscope.estimators.kde import KDE, noise_kernel
from unetscope.estimators.labels import BlockLabels, KMeansLabels, entropy_nats
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.resampling import kernel_information, quarters
from unetscope.measure.layer_statistics import LARGEST_SHIFT, layer_statistics, most_parts, settled
from unetscope.measure.merges import Merging
from unetscope.measure.scope import Compute, Scope
from unetscope.networks.unet import UNet
from unetscope.table.records import Estimate, Layer, Skip


def trained_a_little(data: SegmentationData, steps: int = 8) -> UNet:
    torch.manual_seed(0)
    model = UNet(width=4, depth=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    images, masks = torch.from_numpy(data.images) * data.scale, torch.from_numpy(data.masks)[:, None].float()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy(model(images), masks).backward()
        optimizer.step()
    return model


def least_budget(n: int, pair_bytes: int) -> int:
    """Room for one chunk of features of each image, so that nearly every layer is cut."""
    return (16 + 4) * n * FEATURES_AT_ONCE + pair_bytes * n * n


def assert_agrees_with_slow_twins(model: nn.Module, data: SegmentationData, scope: Scope) -> float:
    """Every estimate of every layer against float64 twins on the concatenated tensors themselves, in bits."""
    seen: dict[str, np.ndarray] = {}
    handles = [
        model.get_submodule(layer.module).register_forward_hook(
            lambda module, inputs, output, label=layer.label: seen.__setitem__(label, output.numpy().copy())
        )
        for layer in scope.layers
    ]
    with eval_mode(model):
        model(torch.from_numpy(data.images) * data.scale)
    for handle in handles:
        handle.remove()
    worst = 0.0
    of_one_layer = [e for e in scope.flow.estimates if e.quantity in ("I(X;M)", "I(Y;M)")]
    for estimate in of_one_layer:
        classes = scope.classes.get(estimate.labels, torch.zeros(len(data), dtype=torch.int64)).numpy()
        if estimate.estimator == "binning":
            expected = slow_binning(seen[estimate.layer], estimate.resolution, classes)[:2]
        else:
            expected = slow_kde(seen[estimate.layer], estimate.resolution, classes, estimate.estimator[4:])
        bits = expected[estimate.quantity == "I(Y;M)"] / math.log(2)
        worst = max(worst, abs(estimate.bits - bits))
        assert estimate.bits == pytest.approx(bits, abs=1e-4), estimate
    return worst


@pytest.mark.long
@pytest.mark.parametrize("many", [interface.MANY, 4])
def test_every_estimate_agrees_with_its_slow_twin(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many images, distances wait for their merge in float32, and are joined in place."""
    monkeypatch.setattr(interface, "MANY", many)
    data = synthetic_nuclei(14, seed=3, image_size=16)
    model = trained_a_little(data)
    scope = Scope(
        model,
        data,
        estimators=[KDE(1.0), KDE(0.05), Binning(0.2), Binning(0.05)],
        labels=[KMeansLabels(k=4), BlockLabels(blocks=2)],
        compute=Compute(memory_budget=least_budget(14, pair_bytes=48)),
    )
    readings, at_merges = len(scope.layers) * (2 * 2 * 3 + 2 * 3), len(scope.skips) * (2 * 2 + 2) * 2 * 3
    assert len(scope.measure(epoch=3)) == readings + at_merges
    assert_agrees_with_slow_twins(model, data, scope)


@pytest.mark.slow
def test_estimates_on_real_activations_agree_with_slow_twins(real_archives: object) -> None:
    import unetscope as us

    data = us.load(f"{real_archives}/stage1_test.zip", image_size=32, accept=["vanished-mask"])
    model = trained_a_little(data, steps=60)
    scope = Scope(model, data, labels=[KMeansLabels(k=8), BlockLabels()])
    scope.measure(epoch=60)
    assert_agrees_with_slow_twins(model, data, scope)


def test_distances_that_wait_for_two_merges_are_joined_to_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a U-Net++: what is joined in place must not be what another merge still waits for."""
    monkeypatch.setattr(interface, "MANY", 2)
    random = torch.Generator().manual_seed(0)
    values = {label: torch.rand(5, 3, generator=random, dtype=torch.float64) for label in "abcd"}
    merges = {"ac": ("a", "c"), "cd": ("c", "d"), "acd": ("ac", "d"), "bd": ("b", "d")}
    layers = [Layer(label, label) for label in "abcd"] + [
        Layer(name, name, parts=parts) for name, parts in merges.items()
    ]
    merging = Merging(layers, LayerStatistics.joined, LayerStatistics.at_rest)

    def statistics(label: str) -> LayerStatistics:
        squared = torch.cdist(values[label], values[label]).square()
        pairwise = Pairwise(squared, squared.new_full((5,), 1e-9))
        return LayerStatistics(pairwise, None, precise=label == "d")

    joined = {}
    for label in "abcd":
        for name, found in merging.add(label, statistics(label)):
            assert found.distances is not None
            joined[name] = found.distances.squared.double().clone(), found.distances.errors.clone()
    assert joined.keys() == {*"abcd", *merges}
    for name, (squared, errors) in joined.items():
        together = torch.cat([values[label] for label in name], dim=1)
        exact = torch.cdist(together, together).square()
        off = (squared - exact).abs()
        assert (off <= errors[:, None] + errors).all()
        assert off.max() < 1e-6


def test_an_estimate_carries_its_ceiling_n_d_and_whether_it_is_saturated() -> None:
    data = synthetic_nuclei(12, image_size=16)
    scope = Scope(UNet(2, depth=1), data, estimators=[KDE(1e-9), KDE(1e9)], labels=[KMeansLabels(k=3)])
    scope.measure(0)
    for estimate in scope.flow.estimates:
        assert estimate.n == 12
        if estimate.quantity not in ("I(X;M)", "I(Y;M)"):
            continue
        ceiling = math.log2(12) if estimate.quantity == "I(X;M)" else estimate.ceiling
        assert estimate.ceiling == pytest.approx(ceiling)
        assert estimate.saturated == (estimate.resolution == 1e-9)
        assert estimate.bits == pytest.approx(estimate.ceiling if estimate.saturated else 0, abs=1e-3)
    sizes = {layer.label: layer.shape for layer in scope.layers}
    assert sizes["4"] == (4, 8, 8)
    assert sizes["5"] == (4, 16, 16)  # merge: 2 upsampled channels and 2 of the skip
    assert {e.layer: e.d for e in scope.flow.estimates}["5"] == 4 * 16 * 16


@pytest.mark.long
def test_budget_and_repetition_change_no_bit() -> None:
    data = synthetic_nuclei(9, image_size=32)
    model = trained_a_little(data, steps=2)
    tables = []
    for budget in (least_budget(9, pair_bytes=48), None, None):
        scope = Scope(model, data, labels=[BlockLabels()], compute=Compute(budget, largest_batch=1))
        tables.append(scope.measure(1))
    assert [e.bits for e in tables[0]] == [e.bits for e in tables[1]] == [e.bits for e in tables[2]]


def planted_clusters(n: int, clusters: int, *, side: int = 72) -> tuple[SegmentationData, np.ndarray]:
    """16-bit noise images; those of a cluster differ from each other by one small step of brightness in some pixels."""
    rng = np.random.default_rng(0)
    cluster = np.arange(n) % clusters
    images = rng.integers(1000, 64_000, (clusters, 1, side, side))[cluster] + 64 * rng.integers(
        0, 2, (n, 1, side, side)
    )
    masks = (rng.random((n, side, side)) < 0.5).astype(np.uint8)
    return SegmentationData(images.astype(np.uint16), masks, tuple(map(str, range(n))), "planted"), cluster


def amplifier(gain: float, offset: float) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        model[0].weight.fill_(gain)
        model[0].bias.fill_(offset)
    return model


@pytest.mark.parametrize(("gain", "offset"), [(3000.0, 0.0), (3000.0, 3e5), (3.0, 3000.0)])
def test_clusters_far_tighter_than_float32_can_tell_are_measured_all_the_same(gain: float, offset: float) -> None:
    """Distances inside a cluster are at the noise, while norms are large enough for float32 products to lose them."""
    data, cluster = planted_clusters(24, 4)
    inside = slow_squared_distances(data.images[cluster == 0] * data.scale * gain)
    noises = [float(np.median(inside[inside > 0])) * factor for factor in (0.1, 1.0, 30.0)]
    tables = []
    for budget in (least_budget(24, pair_bytes=16), None):
        scope = Scope(
            amplifier(gain, offset),
            data,
            layers=["0"],
            estimators=list(map(KDE, noises)),
            labels=[],
            compute=Compute(budget, largest_batch=1),
        )
        estimates = scope.measure(0)
        tables.append([estimate.bits for estimate in estimates])
        assert_agrees_with_slow_twins(scope.model, data, scope)
    assert tables[0] == tables[1]
    assert len(scope.budget.passes(scope.layers)) == 1


@pytest.mark.parametrize("norm", [8e7, 7e8, 8e9, 7e10])
def test_one_near_pair_far_from_the_mean_is_never_lost(norm: float) -> None:
    """Where rounding drives the pair apart by many noise variances, the kernel at hand says that there is nothing to lose."""
    for seed in range(25):
        rng = np.random.default_rng(seed)
        values = (rng.normal(size=(24, 8192)) * math.sqrt(norm / 8192)).astype(np.float32)
        values[1] = values[0]
        values[1, :50] += np.float32(0.042)
        exact = torch.from_numpy(slow_squared_distances(values[:2]))
        statistics = statistics_of(values, [KDE(1.0)])
        if settled(statistics, KDE(1.0), LARGEST_SHIFT):
            assert statistics.distances is not None
            got = statistics.distances.squared[:2, :2]
            assert mixture_information(got, 1.0) == pytest.approx(mixture_information(exact, 1.0), abs=2e-3), seed


@pytest.mark.parametrize(
    ("kind", "noise_variance"),
    [("flat", 2.76), ("flat", 0.003), ("one large", 1.5e-3), ("repeated", 1.34), ("tiny", 4e-44), ("tiny", 4e-42)],
)
def test_products_that_round_one_way_are_noticed(kind: str, noise_variance: float) -> None:
    """Equal addends drift, addends below half a unit of the sum are dropped, squares of the smallest numbers vanish."""
    rng = np.random.default_rng(0)
    if kind == "flat":
        values = np.repeat(np.array([[1.3013823], [-1.3013823], [1.3008546], [-1.3008546]]), 4096, axis=1)
    elif kind == "one large":
        values = rng.choice([-1.0, 1.0], (32, 4096)) * math.sqrt(0.6 * 2**-24)
        values[:, 0] = rng.choice([-1.0, 1.0], 32) * math.sqrt(1.98)
    elif kind == "repeated":
        values = np.repeat(
            rng.normal(size=(3, 128))[rng.integers(0, 3, 7)] + rng.normal(size=(7, 128)) * 0.02, 64, axis=1
        )
    else:
        values = rng.normal(size=(40, 4096)) * math.sqrt(noise_variance) * 0.5
    values = values.astype(np.float32)
    statistics = statistics_of(values, [KDE(noise_variance)])
    if settled(statistics, KDE(noise_variance), LARGEST_SHIFT):
        assert statistics.distances is not None
        got = mixture_information(statistics.distances.squared, noise_variance) / math.log(2)
        exact = mixture_information(torch.from_numpy(slow_squared_distances(values)), noise_variance) / math.log(2)
        assert got == pytest.approx(exact, abs=1e-3)


class Table(nn.Module):
    """Gives the image of brightness k the k-th row."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows = torch.from_numpy(rows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rows[(x[:, 0, 0, 0] * 255).round().long()]


def test_what_float64_cannot_settle_is_no_number() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 2000)).astype(np.float32)
    rows[:, 0] = np.where(np.arange(40) % 2, 1e8, -1e8)
    images = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(8, axis=2).repeat(8, axis=3)
    masks = (rng.random((40, 8, 8)) < 0.5).astype(np.uint8)
    data = SegmentationData(images, masks, tuple(map(str, range(40))), "brightness")
    model = nn.Sequential(Table(rows))
    scope = Scope(
        model, data, layers=["0"], estimators=[KDE(10.0), KDE(1e10), Binning(1.0)], labels=[KMeansLabels(k=4)]
    )
    for estimate in scope.measure(0):
        if estimate.resolution == 10.0:
            assert math.isnan(estimate.bits)
            assert estimate.reason.startswith(
                "distances are lost in the rounding of float64: this noise variance is too"
            )
            assert not estimate.saturated
        else:
            assert not math.isnan(estimate.bits)
            assert not estimate.reason.startswith("distances")


def mixture_information(squared: torch.Tensor, noise_variance: float) -> float:
    return kernel_information(noise_kernel(squared, noise_variance), quarters(len(squared), squared.device)).nats


def statistics_of(values: np.ndarray, estimators: list[KDE | Binning]) -> LayerStatistics:
    layer = Layer("1", "m", shape=(values.shape[1],))
    block = Block(Slice(layer, 0, layer.size), torch.from_numpy(values))
    return next(layer_statistics([block], estimators, len(values)))[1]


def test_a_merge_may_be_off_by_no_more_than_a_layer() -> None:
    names = {"x": (), "y": (), "z": (), "A": ("x", "z"), "B": ("A", "x", "y")}
    layers = [Layer(name, name, parts=parts, shape=(1,)) for name, parts in names.items()]
    assert most_parts(layers) == 4
    assert most_parts(layers[:3]) == 1
    assert most_parts(UNet(1, depth=2).layers) == 2


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_a_measurement_changes_no_bit(dtype: torch.dtype) -> None:
    data = synthetic_nuclei(9, image_size=32)
    scope = Scope(trained_a_little(data, steps=2), data, labels=[BlockLabels()])
    plain = scope.measure(0)
    with torch.autocast("cpu", dtype):
        assert [e.bits for e in scope.measure(0)] == [e.bits for e in plain]


def test_a_layer_of_one_number_an_image_is_measured() -> None:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(1, 2, 3))

    data = synthetic_nuclei(6, image_size=16)
    model = nn.Sequential(Mean())
    scope = Scope(model, data, layers=["0"], estimators=[KDE(1e-4), Binning(0.01)], labels=[])
    assert len(scope.measure(0)) == 3
    assert scope.layers[0].shape == ()


def test_only_layers_that_float32_does_not_settle_are_measured_again() -> None:
    data, _ = planted_clusters(24, 4)
    passes = []
    for gain, noise in ((3000.0, 1e9), (3000.0, 1e4)):
        scope = Scope(amplifier(gain, 0.0), data, layers=["0"], estimators=[KDE(noise)], labels=[])
        batches: list[tuple[int, int]] = []
        scope.measure(0, on_batch=lambda done, total, seen=batches: seen.append((done, total)))
        passes.append(len(batches) // batches[-1][1])
    assert passes == [1, 2]


def test_any_network_with_named_layers_is_measured() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2 * 14 * 14, 5))
    data = synthetic_nuclei(6, image_size=16)
    scope = Scope(model, data, layers=["0", "3"], labels=[KMeansLabels(k=2)])
    scope.measure(0)
    assert [layer.label for layer in scope.layers] == ["0", "3"]
    assert [layer.size for layer in scope.layers] == [2 * 14 * 14, 5]


def test_images_that_stand_twice_lower_the_ceilings() -> None:
    """No layer can tell an image from its copy, so that is where saturation is."""
    once = synthetic_nuclei(8, image_size=16)
    doubled = SegmentationData(
        np.repeat(once.images, 2, axis=0), np.repeat(once.masks, 2, axis=0), tuple("abcdefghijklmnop"), "each twice"
    )
    torch.manual_seed(0)
    scope = Scope(UNet(4, depth=1), doubled, estimators=[KDE(1e-9), Binning(1e-6)], labels=[KMeansLabels(k=3)])
    for estimate in scope.measure(0):
        if estimate.quantity == "I(X;M)":
            assert estimate.ceiling == pytest.approx(3)
        elif estimate.quantity != "I(Y;M)":
            continue
        assert estimate.saturated == (estimate.bits >= 0.99 * estimate.ceiling)
    assert any(estimate.saturated for estimate in scope.flow.estimates)


def test_bits_stay_within_their_bracket_and_ceiling() -> None:
    data = synthetic_nuclei(12, image_size=16)
    scope = Scope(trained_a_little(data), data, estimators=[KDE(1e-9), KDE(1.0)], labels=[KMeansLabels(k=3)])
    for estimate in scope.measure(0):
        assert estimate.lower <= estimate.bits <= estimate.upper <= estimate.ceiling


@pytest.mark.parametrize("order", ["xyzAB", "xyzBA", "AxByz", "BAzyx"])
def test_a_layer_may_be_part_of_several_merges_and_merges_of_merges(order: str) -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.y, self.z = (nn.Conv2d(3, channels, 1) for channels in (1, 2, 3))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.x(images), self.y(images), self.z(images)], dim=1)

    parts = {"A": ("x", "z"), "B": ("A", "x", "y")}
    layers = [Layer(name, name, parts=parts.get(name, ())) for name in order]
    torch.manual_seed(0)
    data, model = synthetic_nuclei(6, image_size=16), Three()
    scope = Scope(model, data, layers=layers, labels=[])
    rows = {(e.layer, e.estimator): e.bits for e in scope.measure(0)}
    assert {layer.label: layer.shape[0] for layer in scope.layers} == {"x": 1, "y": 2, "z": 3, "A": 4, "B": 7}
    images = torch.from_numpy(data.images) * data.scale
    with torch.no_grad():
        seen = {name: getattr(model, name)(images).flatten(1) for name in "xyz"}
    whole = torch.cat([seen["x"], seen["z"], seen["x"], seen["y"]], dim=1).numpy()
    assert rows["B", "kde_upper"] == pytest.approx(
        slow_kde(whole, 1.0, np.zeros(6), "upper")[0] / math.log(2), abs=1e-4
    )


class Gain(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.factor * values


class Given:
    """Labels that a test knows."""

    name = "given"

    def __init__(self, labels: torch.Tensor) -> None:
        self._labels = labels

    def labels(self, masks: np.ndarray) -> np.ndarray:
        return self._labels.numpy()


class Streams(nn.Module):
    """A network whose two streams are clusters in 16 384 dimensions: of u in U, of s in S, an image's first two pixels."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.U, self.S = (_Clusters(torch.randn(8, 16, 32, 32, generator=generator), place, spread) for place in (0, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.U(images)
        self.S(images)
        return images


class _Clusters(nn.Module):
    def __init__(self, centres: torch.Tensor, place: int, spread: float) -> None:
        super().__init__()
        self.centres, self.place, self.spread = centres, place, spread

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        clusters = (images[:, 0, 0, self.place] * 255).round().long()
        noise = torch.randn(
            len(images), *self.centres.shape[1:], generator=torch.Generator().manual_seed(int(clusters.sum()))
        )
        return self.centres[clusters] + self.spread * noise


def at_planted_merge(u: torch.Tensor, s: torch.Tensor, y: torch.Tensor) -> dict[tuple[str, str, str], Estimate]:
    images = torch.zeros(len(y), 1, 16, 16, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = u, s
    images[:, 0, 1, :8] = torch.arange(len(y))[:, None] >> torch.arange(8) & 1  # no two images are equal
    names = tuple(map(str, range(len(y))))
    data = SegmentationData(images.numpy(), np.zeros((len(y), 16, 16), np.uint8), names, "planted")
    layers = (Layer("U", "U"), Layer("S", "S"), Layer("SU", "", role="merge", parts=("U", "S")))
    scope = Scope(
        Streams(1e-3),
        data,
        layers=layers,
        skips=[Skip("skip1", "S", "U", "SU")],
        labels=[Given(y)],
        estimators=[KDE(1.0)],
    )
    return {(e.layer, e.quantity, e.estimator): e for e in scope.measure(0)}


@pytest.mark.long
@pytest.mark.parametrize("bound", ["kde_upper", "kde_lower"])
def test_planted_skips_in_many_dimensions(bound: str) -> None:
    """Redundant, unique, and exclusive or: what S adds to U is 0, H(Y|U), and all of it though neither alone tells anything."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randint(4, (2, 160), generator=generator)
    redundant = at_planted_merge(u=a, s=3 - a, y=a)
    assert redundant["SU", "I(Y;S|U)", bound].bits == pytest.approx(0, abs=0.02)
    assert redundant["SU", "I(Y;U|S)", bound].bits == pytest.approx(0, abs=0.02)
    assert redundant["SU", "I(Y;S;U)", bound].bits == pytest.approx(entropy_nats(a) / math.log(2), abs=0.02)
    unique = at_planted_merge(u=a, s=b, y=b)
    rest = (entropy_nats(4 * a + b) - entropy_nats(a)) / math.log(2)  # H(Y|U)
    assert unique["SU", "I(Y;S|U)", bound].bits == pytest.approx(rest, rel=0.05)
    assert unique["SU", "I(Y;U|S)", bound].bits == pytest.approx(0, abs=0.02)
    a, b = (torch.tensor([0, 0, 1, 1]).repeat(40), torch.tensor([0, 1, 0, 1]).repeat(40))
    both = at_planted_merge(u=a, s=b, y=a ^ b)
    assert both["U", "I(Y;M)", bound].bits == pytest.approx(0, abs=0.02)
    assert both["S", "I(Y;M)", bound].bits == pytest.approx(0, abs=0.02)
    assert both["SU", "I(Y;S|U)", bound].bits == pytest.approx(1, rel=0.05)
    assert both["SU", "I(Y;S;U)", bound].bits == pytest.approx(-1, rel=0.05)
    assert not any(e.saturated for e in both.values() if e.quantity in ("I(Y;S|U)", "I(Y;U|S)"))


def test_at_a_merge_that_tells_all_images_apart_differences_are_saturated() -> None:
    data = synthetic_nuclei(12, image_size=32)
    scope = Scope(UNet(4, depth=1), data, estimators=[KDE(1e-9), Binning(1e-6)], labels=[BlockLabels()])
    rows = [e for e in scope.measure(0) if e.quantity in ("I(Y;S|U)", "I(Y;U|S)", "I(Y;S;U)")]
    assert len(rows) == 3 * 3
    assert all(e.saturated for e in rows)
    for e in rows:
        if e.estimator != "binning":
            assert e.lower - 1e-9 <= e.bits <= e.upper + 1e-9


def test_schemes_and_estimators_that_would_hide_each_other_are_refused() -> None:
    data = synthetic_nuclei(6, image_size=16)
    with pytest.raises(InvalidArgument, match=r"labels holds kmeans\(k=2\) more than once"):
        Scope(UNet(1, depth=1), data, labels=[KMeansLabels(k=2), KMeansLabels(k=2)])
    with pytest.raises(InvalidArgument, match="estimators holds KDE upper bound, noise variance 1 more than once"):
        Scope(UNet(1, depth=1), data, estimators=[KDE(1.0), Binning(), KDE(1.0, permutations=99)], labels=[])
    schemes = [KMeansLabels(k=2), KMeansLabels(k=2, seed=1), KMeansLabels(k=2, n_init=1)]
    assert list(Scope(UNet(1, depth=1), data, labels=schemes).classes) == [
        "kmeans(k=2)",
        "kmeans(k=2, seed=1)",
        "kmeans(k=2, n_init=1)",
    ]


def test_labels_of_one_class_give_no_number_and_the_reason() -> None:
    data = synthetic_nuclei(6, image_size=16)
    scope = Scope(UNet(1, depth=1), data, labels=[BlockLabels(blocks=1, threshold=0)])
    scope.measure(0)
    about_labels = [e for e in scope.flow.estimates if e.quantity == "I(Y;M)"]
    assert about_labels
    assert all(math.isnan(e.bits) and e.reason == "every image has the same label" for e in about_labels)
    assert not any(e.saturated for e in about_labels)


def test_a_layer_that_is_the_same_for_all_images_says_so() -> None:
    model = UNet(2, depth=1)
    nn.init.zeros_(model.get_submodule("layer2.0").weight)
    scope = Scope(model, synthetic_nuclei(8, image_size=16), labels=[BlockLabels()])
    dead = [e for e in scope.measure(0) if e.layer == "2" and e.quantity == "I(X;M)"]
    assert {(e.estimator, e.bits, e.reason) for e in dead} == {
        ("kde_upper", 0.0, "the layer is the same for every image"),
        ("kde_lower", 0.0, "the layer is the same for every image"),
        (
            "binning",
            0.0,
            "every image falls into the same bins: the layer is the same for all, or the bin size too large",
        ),
    }


@pytest.mark.parametrize("gain", [1.0, 1e-3, 1e3])
def test_noise_relative_to_the_median_distance_knows_no_unit(gain: float) -> None:
    """And at a merge each stream keeps its own: what a stream without a say adds there is nothing."""
    data = synthetic_nuclei(12, image_size=16)
    rows = {}
    for factor in (1.0, gain):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Gain(factor))
        scope = Scope(
            model,
            data,
            layers=[Layer("a", "1"), Layer("b", "2"), Layer("both", "", parts=("a", "b"))],
            estimators=[KDE(0.1, relative=True), Mixture(0.1, relative=True)],
            labels=[BlockLabels()],
        )
        rows[factor] = {(e.layer, e.estimator, e.quantity): e for e in scope.measure(0)}
    for key, estimate in rows[gain].items():
        assert key[1].endswith("_relative")
        assert estimate.bits == pytest.approx(rows[1.0][key].bits, abs=1e-4, nan_ok=True), key
    a, both = (rows[gain][layer, "kde_upper_relative", "I(X;M)"].bits for layer in ("a", "both"))
    assert a < both  # twice the distances, at the same noise in each stream


def test_noise_relative_to_no_distance_is_no_number() -> None:
    data = synthetic_nuclei(8, image_size=16)
    model = UNet(2, depth=1)
    nn.init.zeros_(model.get_submodule("layer2.0").weight)
    scope = Scope(model, data, estimators=[KDE(0.1, relative=True)], labels=[])
    dead = [e for e in scope.measure(0) if e.layer == "2"]
    assert all(
        math.isnan(e.bits) and e.reason.startswith("more than half of the pairs of images are equal") for e in dead
    )


def test_activations_that_are_not_finite_are_named() -> None:
    model = UNet(1, depth=1)
    with torch.no_grad():
        model.get_submodule("layer4.0").bias.fill_(math.nan)  # type: ignore[union-attr]
    scope = Scope(model, synthetic_nuclei(4, image_size=16), labels=[BlockLabels()])
    with pytest.raises(MeasurementError, match="layer 4: activations are not finite; the network has diverged"):
        scope.measure(0)
    assert len(scope.flow) == 0


def test_a_scope_that_cannot_be_is_refused_at_once() -> None:
    data = synthetic_nuclei(4, image_size=16)
    with pytest.raises(NetworkError, match=r"Sequential does not run on an example .* expected input"):
        Scope(nn.Sequential(nn.Conv2d(4, 1, 1)), data, labels=[])
    with pytest.raises(NetworkError, match=r"no module matches 'lyaer\*': the nearest names are 'layer"):
        Scope(UNet(1, depth=1), data, layers=["lyaer*"], labels=[])
    with pytest.raises(NetworkError, match="skip1 names layer '9', which is not measured: there are '1', '2'"):
        Scope(UNet(1, depth=1), data, skips=[Skip("skip1", "9", "5up", "5")], labels=[])
    with pytest.raises(InvalidArgument, match="layers is empty"):
        Scope(UNet(1, depth=1), data, layers=[], labels=[])
    with pytest.raises(InvalidArgument, match="estimators is empty"):
        Scope(UNet(1, depth=1), data, estimators=[], labels=[])
    with pytest.raises(InvalidArgument, match="K = 64 clusters for 4 masks"):
        Scope(UNet(1, depth=1), data)
    with pytest.raises(InvalidArgument, match="a probe set of 1 image cannot be measured"):
        Scope(UNet(1, depth=1), data.subset([0]), labels=[])


def test_measuring_uint16_images_reads_them_as_uint8_ones() -> None:
    eight = synthetic_nuclei(5, image_size=16)
    sixteen = SegmentationData(eight.images.astype(np.uint16) * 257, eight.masks, eight.names, "the same")
    torch.manual_seed(0)
    model = UNet(2, depth=1)
    rows = [Scope(model, data, labels=[BlockLabels()]).measure(0) for data in (eight, sixteen)]
    assert [e.bits for e in rows[0]] == pytest.approx([e.bits for e in rows[1]], abs=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_estimates_on_cuda_are_those_on_the_cpu() -> None:
    data, held_out = synthetic_nuclei(18, image_size=32).split(1 / 3)
    model = trained_a_little(data, steps=2)
    what = {"labels": [BlockLabels()], "held_out": held_out, "probes": [Linear(), Convolutional(8)]}
    on_cpu = Scope(model, data, **what).measure(0)
    torch.set_float32_matmul_precision("high")
    try:
        on_gpu = Scope(model.cuda(), data, **what).measure(0)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert [e.bits for e in on_gpu] == pytest.approx([e.bits for e in on_cpu], abs=1e-3)


def test_keywords_of_version_0_1_warn_and_work() -> None:
    data, moved = synthetic_nuclei(8, image_size=16), {"largest_batch": 2, "share": False, "memory_budget": 2**30}
    for name, value in moved.items():
        with pytest.warns(DeprecationWarning, match=rf"Scope\({name}=…\) is Scope\(compute=Compute\({name}=…\)\) now"):
            scope = Scope(UNet(2, depth=1), data, labels=[], **{name: value})
        assert getattr(scope.compute, name) == value
    with pytest.warns(DeprecationWarning, match=r"Scope\(merge_probes=…\) is Scope\(probes=Probes\(merges=…\)\) now"):
        scope = Scope(UNet(2, depth=1), data, labels=[], held_out=data, merge_probes=[])
    assert ([family.name for family in scope.probes], scope.merge_probes) == (["linear"], ())
    with pytest.raises(TypeError, match="Scope has no parameter 'budget'"):
        Scope(UNet(2, depth=1), data, labels=[], budget=1)
