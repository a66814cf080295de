"""Forecast the time, memory and disk of a run from a short sample on this machine.

An epoch on some of the images, a forward pass and one chunk of the estimators' arithmetic run with the real data and
network, and are scaled by the counts of the configuration.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from unetscope.activations import FEATURES_AT_ONCE, Block, Slice, pixels, stream, to_input
from unetscope.base import NoProgress, Progress
from unetscope.estimators import Family
from unetscope.measure import Probes, Scope, layer_statistics, readings_of
from unetscope.plots import architecture, save
from unetscope.runs.experiment import Experiment, prepare
from unetscope.runs.memory_needs import little_memory
from unetscope.runs.resuming import resumed_or_new
from unetscope.table import EpochRecord, Layer
from unetscope.training import Checkpoints, RunConfig, Trainer

SAMPLE_IMAGES = 64
FIGURES_AND_PAGE_BYTES = 12 * 10**6
ESTIMATE_BYTES = 250  # a row of the table with its index


@dataclass(frozen=True)
class Forecast:
    """Seconds, bytes and counts that a run is expected to take."""

    training_images: int
    validation_images: int
    marked_epochs: int
    probed_epochs: int
    seconds_an_epoch: float
    seconds_a_measurement: float
    seconds_of_merges: float
    forward_passes_a_measurement: int
    seconds: float
    memory_bytes: int
    disk_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """All of it, for machines."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """All of it, for people."""
        return [
            ("images", f"{self.training_images} to train on, {self.validation_images} to validate on"),
            ("a training epoch", _duration(self.seconds_an_epoch)),
            (
                "a measurement",
                f"{_duration(self.seconds_a_measurement)}, {self.forward_passes_a_measurement} forward pass(es), "
                f"at {self.marked_epochs} marked epochs",
            ),
            ("probes of the merges", f"{_duration(self.seconds_of_merges)}, at {self.probed_epochs} of them"),
            ("in all, with figures", _duration(self.seconds)),
            ("memory", _size(self.memory_bytes)),
            ("disk", _size(self.disk_bytes)),
        ]


def forecast_run(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    code: str | None = None,
    progress: Progress | None = None,
) -> Forecast:
    """Prepare a run, sample it, and scale up. Writes nothing but the cache of decoded images.

    out: the folder that the run would have, refused if it is occupied; without one any new run. With `resume`, of the
    remaining epochs of the run in `out`. code: as of `run`.

    Raises: UnetscopeError for anything that would stop the run before it begins.
    """
    progress = progress or NoProgress()
    config, folder = resumed_or_new(config, out, resume=resume, code=code, progress=progress)
    started = time.perf_counter()
    experiment = prepare(config, progress)
    preparing = time.perf_counter() - started
    resident = psutil.Process().memory_info().rss  # before the samples, which leave freed memory behind
    progress.stage("sampling", 5)
    done = 0 if folder is None else max(Checkpoints(folder.checkpoints).epochs(), default=0)
    left = config.training.epochs - done
    scope = experiment.scope
    ahead = [epoch for epoch in experiment.marked if epoch >= done and not (folder and folder.measured(epoch))]
    marked, probed = len(ahead), sum(map(scope.probes_merges_at, ahead))
    passes = len(scope.budget.passes(scope.layers))
    epoch, checkpoint_bytes = _sample_epoch(experiment)
    progress.advance(1, "an epoch")
    measurement = _forward_seconds(experiment) * passes + _statistics_seconds(experiment)
    progress.advance(2, "distances and symbols")
    measurement += _probe_seconds(experiment, scope.probes) if marked else 0.0
    progress.advance(3, "probes of layers")
    of_merges = _probe_seconds(experiment, (), scope.merge_probes) if probed else 0.0
    progress.advance(4, "probes of merges")
    figures = _figures_seconds(experiment)
    progress.advance(5, "figures")
    needs = experiment.memory_needs()
    if warning := little_memory(needs, torch.device(experiment.config.training.device)):
        progress.warn(warning)
    row_bytes = _row_bytes(scope)
    return Forecast(
        training_images=len(experiment.train),
        validation_images=len(experiment.validation),
        marked_epochs=marked,
        probed_epochs=probed,
        seconds_an_epoch=epoch,
        seconds_a_measurement=measurement,
        seconds_of_merges=of_merges,
        forward_passes_a_measurement=passes,
        seconds=preparing + epoch * left + measurement * marked + of_merges * probed + figures,
        # they take turns, but allocators keep what has been freed, in pieces of other sizes
        memory_bytes=resident + needs.training + needs.measuring,
        disk_bytes=(marked + 1) * checkpoint_bytes + marked * row_bytes + FIGURES_AND_PAGE_BYTES,
    )


def _sample_epoch(experiment: Experiment) -> tuple[float, int]:
    """Seconds of a whole epoch, from the second of two on some of the images; and the bytes of a checkpoint."""
    share = min(1.0, SAMPLE_IMAGES / len(experiment.train))
    train = experiment.train.subset(range(max(1, round(share * len(experiment.train)))))
    validation = experiment.validation.subset(range(max(1, round(share * len(experiment.validation)))))
    config = experiment.config.training.model_copy(update={"epochs": 2})
    records: list[EpochRecord] = []
    with tempfile.TemporaryDirectory() as folder:
        reading = experiment.network.reading
        trainer = Trainer(experiment.model, train, validation, config, Path(folder), reading=reading)
        trainer.run(on_epoch=records.append)
        size = sum(path.stat().st_size for path in Path(folder).glob("epoch-00002/*"))
    return records[-1].seconds * len(experiment.train) / len(train), size


def _forward_seconds(experiment: Experiment) -> float:
    """Seconds of one forward pass over the probe set, with its activations copied out."""
    scope = experiment.scope
    sample = pixels(scope.probe_set)[:SAMPLE_IMAGES]
    sampled = replace(scope.budget, n=len(sample))

    def run_through() -> None:
        for _ in stream(
            experiment.model,
            sample,
            sampled.passes(scope.layers),
            batch_size=sampled.batch_size,
            prepare=lambda batch: to_input(batch, scope.probe_set.scale),
        ):
            pass

    return _seconds(run_through) * len(scope.probe_set) / len(sample)


def _statistics_seconds(experiment: Experiment) -> float:
    """Seconds of the distances, symbols and estimates of all layers, from one chunk of features of all images."""
    scope = experiment.scope
    n = len(scope.probe_set)
    layer = Layer("sample", "", shape=(FEATURES_AT_ONCE,))
    values = torch.rand(n, FEATURES_AT_ONCE, device=next(experiment.model.parameters()).device)
    whole = Slice(layer, 0, layer.size)

    def gather() -> Any:
        return next(layer_statistics([Block(whole, values)], scope.estimators, n))[1]

    statistics = gather()
    chunks = sum(layer.size for layer in scope.layers if not layer.parts) / FEATURES_AT_ONCE
    readings = _seconds(lambda: list(readings_of(statistics, scope.estimators, scope.classes)))
    return _seconds(gather) * chunks + readings * len(scope.layers)


def _probe_seconds(experiment: Experiment, of_layers: Sequence[Family], of_merges: Sequence[Family] = ()) -> float:
    """Seconds of the usable information by some families, from some of the images, and twice as many.

    The difference is what images take; the rest is fits on samples of places, which hardly grow with the number of images.
    """
    scope = experiment.scope
    if scope.held_out is None or not (of_layers or of_merges):
        return 0.0
    sets = scope.probe_set, scope.held_out
    images = sum(map(len, sets))

    def taken(count: int) -> tuple[int, float]:
        share = min(1.0, count / images)
        train, held_out = (
            # The first images are of few groups, too few for folds, and what a fit takes hardly depends on groups.
            replace(data.subset(range(min(len(data), max(4, round(share * len(data)))))), groups=())
            for data in sets
        )
        sampled = Scope(
            experiment.model,
            train,
            estimators=[],
            labels=[],
            held_out=held_out,
            probes=Probes(of_layers, of_merges),
        )
        return len(train) + len(held_out), _seconds(lambda: sampled.measure(0))

    few, of_few = taken(SAMPLE_IMAGES)
    if few == images:
        return of_few
    more, of_more = taken(2 * SAMPLE_IMAGES)
    return of_more + max(0.0, (of_more - of_few) / max(1, more - few)) * (images - more)


def _figures_seconds(experiment: Experiment) -> float:
    """Seconds of all figures, from the time of drawing one of them."""
    scope = experiment.scope
    with tempfile.TemporaryDirectory() as folder:
        drawing = _seconds(lambda: save(architecture(scope.layers, scope.skips).figure, folder, "architecture"))  # type: ignore[arg-type]
    return drawing * figure_count(scope)


def figure_count(scope: Scope) -> int:
    """How many figures the report of a run draws, roughly."""
    series = sum(len(estimator.series) for estimator in scope.estimators)
    usable = 3 * len(scope.probes) + len(scope.merge_probes)
    of_classes = int(scope.probe_set.classes > 2)  # their Dice
    return 3 + of_classes + usable + 2 * len(scope.classes) + series * (1 + len(scope.classes))


def row_counts(scope: Scope) -> tuple[int, int]:
    """How many estimates a marked epoch adds to the table: by estimators of distances and symbols, and by probes."""
    series = sum(len(estimator.series) for estimator in scope.estimators)
    gains = 3 * len(scope.skips)
    rows = series * (len(scope.layers) * (1 + len(scope.classes)) + gains * len(scope.classes))
    return rows, len(scope.probes) * (len(scope.layers) + gains) + len(scope.merge_probes) * gains


def _row_bytes(scope: Scope) -> int:
    """Bytes of the rows that a marked epoch adds to the table."""
    rows, probed = row_counts(scope)
    per_image = 0 if scope.held_out is None else 8 * len(scope.held_out)
    return rows * ESTIMATE_BYTES + probed * (ESTIMATE_BYTES + per_image)


def _seconds(work: Callable[[], object]) -> float:
    """Seconds of the second of two runs."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    hours = minutes / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _size(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
