"""The presets: whole configurations, of which a flag of the command changes one value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

THIRDS = {"merge_epochs": "thirds"}  # probes of the merges take longer than all else that is measured
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # About a minute on two cores: three levels instead of four halve a measurement, small batches learn in few epochs.
    "demo": {
        "data": {"synthetic_images": 160, "validation_share": 0.25, "image_size": 48},
        "network": {"width": 8, "depth": 3},
        "training": {"epochs": 20, "optimizer": "adam", "learning_rate": 2e-3, "batch_size": 4},
        "measuring": {"clusters": 32, **THIRDS},
    },
    "quick": {
        "data": {"image_size": 64},
        "network": {"width": 8},
        "training": {"epochs": 100, "optimizer": "adam", "learning_rate": 1e-3},
        "measuring": {**THIRDS},
    },
    "paper": {
        "data": {"image_size": 128},
        "network": {"width": 16},
        "training": {"epochs": 10_000, "optimizer": "sgd", "learning_rate": 1e-3, "precision": "float32"},
        "measuring": {"noise_variances": [1.0], "bin_sizes": [0.2], **THIRDS},
    },
    "paper-code": {
        "data": {"image_size": 128},
        "network": {"width": 16},
        "training": {"epochs": 10_000, "optimizer": "sgd", "learning_rate": 1e-3, "precision": "float32"},
        "measuring": {"marked": "paper", "noise_variances": [0.2], "bin_sizes": [0.1], **THIRDS},
    },
}
