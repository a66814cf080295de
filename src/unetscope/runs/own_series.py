"""Which estimators a run was begun with: what is shown and judged by default, whatever is measured later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unetscope.table import Flow, SeriesKey, entries, estimator_text, settings


def own_estimators(
    configuration: Mapping[str, Any], facts: Mapping[str, Any], *, trained_here: bool
) -> tuple[str, ...]:
    """The estimators with their resolutions, as of `estimator_text`, in the order in which the run measures them.

    Those of a loop of one's own are among the facts; those of a run that was trained here follow from the configuration.

    >>> own_estimators({"measuring": {"noise_variances": [0.1], "bin_sizes": []}}, {}, trained_here=True)
    ('KDE upper bound, noise variance 0.1', 'KDE lower bound, noise variance 0.1')
    """
    if not trained_here:
        return tuple(facts.get("measured by", {}).get("estimators", ()))
    measuring = configuration.get("measuring", {})
    return tuple(
        estimator_text(key, *resolution)
        for setting in settings()
        if setting.argument == "estimators"
        for resolution in setting.resolutions(measuring.get(setting.name, setting.nothing))
        for entry in entries()
        if setting in entry.settings
        for key in entry.titles
    )


def own_first(flow: Flow, own: Sequence[str]) -> Flow:
    """The table with the estimates by these estimators before those by others, of each layer at each epoch."""
    if not own:
        return flow
    layers = {layer.label: place for place, layer in enumerate(flow.layers)}
    ranks = {text: place for place, text in enumerate(own)}
    rank = {series.key: ranks.get(series.key.text, len(ranks)) for series in flow.series}
    ordered = sorted(flow.estimates, key=lambda row: (row.epoch, layers.get(row.layer, -1), rank[SeriesKey.of(row)]))
    return Flow(flow.layers, flow.skips, tuple(ordered))
