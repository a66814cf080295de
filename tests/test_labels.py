from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unetscope.base.errors import InvalidArgument
from unetscope.estimators.labels import BlockLabels, KMeansLabels, entropy_nats


def random_masks(n: int, size: int = 8, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, size, size)) > 0.6).astype(np.uint8)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_entropy_is_that_of_scipy(labels: list[int]) -> None:
    from scipy.stats import entropy

    ours = entropy_nats(torch.tensor(labels))
    assert ours == pytest.approx(entropy(np.bincount(labels)), abs=1e-12)
    assert 0 <= ours <= math.log(len(labels)) + 1e-12


def test_kmeans_does_not_depend_on_the_number_of_threads() -> None:
    from threadpoolctl import threadpool_limits

    masks = random_masks(60)
    with threadpool_limits(limits=1):
        one = KMeansLabels(k=8).labels(masks)
    np.testing.assert_array_equal(one, KMeansLabels(k=8).labels(masks))


def test_kmeans_finds_planted_clusters() -> None:
    planted = np.repeat(np.arange(5), [3, 9, 4, 1, 7])
    masks = random_masks(5)[planted]
    labels = KMeansLabels(k=5).labels(masks)
    assert len(set(zip(labels.tolist(), planted.tolist(), strict=True))) == 5


@pytest.mark.parametrize(
    ("scheme", "n", "text"),
    [
        (KMeansLabels(k=64), 10, "K = 64 clusters for 10 masks: choose K of at most 10"),
        (
            BlockLabels(blocks=3),
            5,
            "a mask of 8x8 cannot be cut into 3x3 blocks: choose a number of blocks that divides",
        ),
        (BlockLabels(blocks=2, threshold=16), 5, "threshold must be 0 to 15 pixels of a 4x4 block, got 16"),
    ],
)
def test_labels_that_cannot_be_made_are_refused(scheme: KMeansLabels | BlockLabels, n: int, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        scheme.labels(random_masks(n))


@pytest.mark.parametrize(("masks", "clusters"), [(64, 64), (63, 7), (40, 5), (17, 2), (10, 2), (2, 2)])
def test_a_small_set_has_fewer_clusters(masks: int, clusters: int) -> None:
    repeated = np.repeat(random_masks(masks), 2, axis=0)
    fitting = KMeansLabels(n_init=2).fitting(repeated)
    assert (fitting.k, fitting.n_init) == (clusters, 2)
    assert len(set(fitting.labels(repeated).tolist())) == clusters


@pytest.mark.parametrize(("classes", "sides"), [(2, (8, 8)), (3, (8, 8)), (5, (6, 10)), (2, (4, 4, 4)), (3, (4, 4, 4))])
def test_which_pixels_are_ignored_makes_no_clusters(classes: int, sides: tuple[int, ...]) -> None:
    """Two kinds of masks, of which one quarter is ignored, another in each."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, classes, (2, *sides)).astype(np.uint8)
    kind, masks = np.arange(40) % 2, kinds[np.arange(40) % 2].copy()
    for number, mask in enumerate(masks):
        mask.reshape(4, -1)[number // 2 % 4] = 255
    labels = KMeansLabels(k=2).labels(masks, ignored=255)
    assert len(set(zip(labels.tolist(), kind.tolist(), strict=True))) == 2
    alike = np.where(masks == 255, 255, kinds[0])
    with pytest.raises(InvalidArgument, match="K = 2 clusters for 1 distinct masks"):
        KMeansLabels(k=2).labels(alike, ignored=255)


def test_more_clusters_than_distinct_masks_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="K = 4 clusters for 3 distinct masks: choose K of at most 3"):
        KMeansLabels(k=4).labels(np.repeat(random_masks(3), 5, axis=0))
    with pytest.raises(InvalidArgument, match="K must be 2 or more clusters, got 1"):
        KMeansLabels(k=1)
    with pytest.raises(InvalidArgument, match="blocks must be 1 to 64 a side, got 0"):
        BlockLabels(blocks=0)


def test_blocks_are_the_slow_twin() -> None:
    masks = random_masks(40)
    patterns = [tuple(mask[r : r + 4, c : c + 4].sum() > 6 for r in (0, 4) for c in (0, 4)) for mask in masks]
    labels = BlockLabels(blocks=2, threshold=6).labels(masks)
    for i in range(40):
        for j in range(40):
            assert (labels[i] == labels[j]) == (patterns[i] == patterns[j])


def test_the_paper_threshold_is_the_default_at_its_resolution() -> None:
    mask = np.zeros((2, 128, 128), np.uint8)
    mask[0, :8, :8] = 1  # 64 pixels in the first of 16 blocks: not more than T = 64
    mask[1, :8, :8] = 1
    mask[1, 8, 8] = 1
    assert BlockLabels().labels(mask).tolist() == [0, 1]
    assert BlockLabels(threshold=63).labels(mask).tolist() == [0, 0]


@pytest.mark.slow
def test_real_masks_have_the_papers_entropy(real_archives: object) -> None:
    import unetscope as us

    masks = us.load(f"{real_archives}/stage1_train.zip").masks
    entropy = entropy_nats(torch.from_numpy(KMeansLabels().labels(masks))) / math.log(2)
    assert entropy == pytest.approx(2.83, abs=0.15)
    blocks = BlockLabels().labels(masks)
    assert entropy_nats(torch.from_numpy(blocks)) / math.log(2) == pytest.approx(7.38, abs=0.05)
