"""The published protocol as a reference: pickle every activation, read it back, estimate afterwards.

Written from its description, with the means of its day: all layers of all images are pickled; each is loaded again; for each
noise variance, bound and class the full matrix of distances is computed anew from a full Gram product; bins are sorted as
rows of integers. Matrix products are float32 and use all cores; nothing is made slow on purpose.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unetscope.estimators.interface import Estimator
from unetscope.estimators.kde import BOUNDS, EXPONENT, KDE
from unetscope.table.records import Layer

Row = tuple[str, str, float, str, float]  # layer, estimator, resolution, labels ("" for I(X;M)), bits


def store(model: nn.Module, batches: Iterator[Tensor], layers: Sequence[Layer], folder: Path) -> None:
    """One forward pass; each layer's activations of all images as one pickle, [images, features] float32."""
    kept: dict[str, list[np.ndarray]] = {layer.label: [] for layer in layers}
    handles = [
        model.get_submodule(layer.module).register_forward_hook(
            lambda _module, _inputs, output, label=layer.label: kept[label].append(output.flatten(1).numpy().copy())
        )
        for layer in layers
    ]
    model.eval()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    for place, layer in enumerate(layers):
        with (folder / f"{place}.pickle").open("wb") as file:
            pickle.dump(np.concatenate(kept.pop(layer.label)), file, protocol=4)


def estimate(
    layers: Sequence[Layer], folder: Path, estimators: Sequence[Estimator], classes: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """Read every pickle back and estimate I(X;M) and I(Y;M) in bits, one estimator after the other."""
    for place, layer in enumerate(layers):
        with (folder / f"{place}.pickle").open("rb") as file:
            values = pickle.load(file)  # written above, by this process
        for estimator in estimators:
            if isinstance(estimator, KDE):
                for bound in BOUNDS:
                    c = EXPONENT[bound] * estimator.noise_variance
                    whole = _kde(values, c)
                    yield layer.label, f"kde_{bound}", estimator.noise_variance, "", whole
                    for name, labels in classes.items():
                        inside = sum(np.mean(labels == k) * _kde(values[labels == k], c) for k in np.unique(labels))
                        yield layer.label, f"kde_{bound}", estimator.noise_variance, name, whole - inside
            else:
                symbols = np.floor(values / estimator.bin_size).astype(np.int64)
                whole = _entropy(symbols)
                yield layer.label, "binning", estimator.bin_size, "", whole
                for name, labels in classes.items():
                    inside = sum(np.mean(labels == k) * _entropy(symbols[labels == k]) for k in np.unique(labels))
                    yield layer.label, "binning", estimator.bin_size, name, whole - inside


def _kde(values: np.ndarray, c: float) -> float:
    tensor = torch.from_numpy(values)
    norms = tensor.square().sum(dim=1)
    squared = (norms[:, None] + norms[None] - 2 * tensor @ tensor.T).clamp(min=0)
    return -((-squared / c).logsumexp(dim=1) - math.log(len(values))).mean().item() / math.log(2)


def _entropy(symbols: np.ndarray) -> float:
    rows = np.ascontiguousarray(symbols).view(np.dtype((np.void, symbols.dtype.itemsize * symbols.shape[1])))
    _, counts = np.unique(rows, return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
