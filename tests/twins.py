"""Slow twins: float64, loops, straight from the formulas, obviously right."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np


def slow_squared_distances(values: np.ndarray) -> np.ndarray:
    t = values.astype(np.float64).reshape(len(values), -1)
    return np.array([[((a - b) ** 2).sum() for b in t] for a in t])


def slow_kde(values: np.ndarray, noise_variance: float, classes: np.ndarray, bound: str) -> tuple[float, float]:
    """I(X;M) and I(Y;M) in nats."""
    squared = slow_squared_distances(values)
    c = {"upper": 2.0, "lower": 8.0}[bound]

    def information(rows: np.ndarray) -> float:
        kernel = np.exp(-squared[np.ix_(rows, rows)] / (c * noise_variance))
        return -np.mean([math.log(row.mean()) for row in kernel])

    everything = information(np.arange(len(values)))
    inside = sum(np.mean(classes == c) * information(np.flatnonzero(classes == c)) for c in set(classes.tolist()))
    return everything, everything - inside


def slow_binning(values: np.ndarray, bin_size: float, classes: np.ndarray) -> tuple[float, float, float]:
    """I(X;M) and I(Y;M) in nats, and the share of rows that occur once."""
    t = values.astype(np.float64).reshape(len(values), -1)
    symbols = [tuple(math.floor(value) for value in row / bin_size) for row in t]

    def entropy(things: list[object]) -> float:
        return -sum(k / len(things) * math.log(k / len(things)) for k in Counter(things).values())

    everything = entropy(list(symbols))
    inside = sum(
        np.mean(classes == c) * entropy([s for s, y in zip(symbols, classes, strict=True) if y == c])
        for c in set(classes.tolist())
    )
    unique = sum(count == 1 for count in Counter(symbols).values()) / len(symbols)
    return everything, everything - inside, unique
