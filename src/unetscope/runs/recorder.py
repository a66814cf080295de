"""A run folder for a network that is trained in a loop of its own."""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import platform
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat, SupportsInt

import torch
from torch import Tensor, nn

from unetscope import __version__
from unetscope.activations import broadcast, rank
from unetscope.base import InvalidArgument, RunFolderError, first_line, parse_json, real_number, real_numbers
from unetscope.data import SegmentationData
from unetscope.measure import Scope
from unetscope.runs.folder import RunFolder, data_facts, has_same_data
from unetscope.runs.trackers import Follower, check_tracker
from unetscope.table import EpochRecord, Flow, epoch_number, estimator_text


class Recorder:
    """Measures at marked epochs and keeps the estimates in a run folder, which `unetscope verdict`, `report` and `export` read.

    scope: what to measure. out: the run folder; an existing one is continued, and epochs in it are not measured again, so
    a killed training loses nothing. about: further values for the page to show, such as learning rates.
    track: `"tensorboard"`, `"mlflow"` or `"wandb"`: a tracker that shows the same, in the run folder and without network.

    Under a process group every process has a recorder and calls it; the first one writes.

    Raises: RunFolderError if the folder is occupied, or holds another network's layers; MissingDependency if the tracker's
    package is not installed; InvalidArgument if JSON cannot hold what `about` says.

    >>> import tempfile
    >>> from unetscope.data.synthetic import synthetic_nuclei
    >>> from unetscope.networks.unet import UNet
    >>> scope = Scope(UNet(width=2, depth=1), synthetic_nuclei(6, image_size=16), labels=[])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     recorder = Recorder(scope, Path(folder, "run"))
    ...     recorder.measure(0), recorder.measure(0), RunFolder.open(recorder.path).flow().epochs
    (True, False, (0,))
    """

    def __init__(
        self, scope: Scope, out: str | Path, *, about: Mapping[str, Any] | None = None, track: str | None = None
    ) -> None:
        check_tracker(track)
        self.scope, self.path = scope, Path(out)
        if rank() == 0:
            self._begin(_described(about or {}))
        self._follower = Follower(RunFolder(self.path), track if rank() == 0 else None, warnings.warn)
        atexit.register(self._follower.close)
        self._weights: dict[int, str] = {}  # by epoch measured here, the digest of what was measured
        scope.recall(broadcast(RunFolder.open(self.path).flow() if rank() == 0 else None) or Flow((), (), ()))

    def _begin(self, about: dict[str, Any]) -> None:
        """Make the run folder, or check that it is of the same network, images and measurements."""
        if RunFolder.exists(self.path):
            self._refuse_other_run(RunFolder.open(self.path))
        else:
            parts = {"probe set": self.scope.probe_set, "held out": self.scope.held_out}
            facts = {
                "data": {
                    part: data_facts(data) | {"classes": data.classes}
                    for part, data in parts.items()
                    if data is not None
                },
                "measured by": self._measured_by,
                "versions": {
                    "unetscope": __version__,
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
            }
            network = {"network": {"class": type(self.scope.model).__name__, "trained by": "its own loop"}}
            RunFolder.create(self.path, {"configuration": network | about, "facts": facts})
        RunFolder.open(self.path).describe(self.scope.layers, self.scope.skips)

    def _refuse_other_run(self, folder: RunFolder) -> None:
        layers = folder.flow().layers
        if layers and layers != self.scope.layers:
            raise RunFolderError(f"{self.path} holds the layers of another network: choose another folder")
        for part, data in (("probe set", self.scope.probe_set), ("held out", self.scope.held_out)):
            if not has_same_data(folder, part, data):
                raise RunFolderError(f"{self.path} was measured on other images ({part}): choose another folder")
        if folder.facts.get("measured by", self._measured_by) != self._measured_by:
            raise RunFolderError(f"{self.path} was measured by other estimators or labels: choose another folder")

    @property
    def _measured_by(self) -> dict[str, list[str]]:
        scope = self.scope
        return {
            "estimators": [estimator_text(*series) for estimator in scope.estimators for series in estimator.series],
            "labels": list(scope.classes),
            "probes": [family.name for family in (*scope.probes, *scope.merge_probes)],
        }

    @property
    def flow(self) -> Flow:
        """All estimates, those of earlier runs of the same training included."""
        return self.scope.flow

    def measure(self, epoch: SupportsInt, *, last: bool = False) -> bool:
        """Measure the network, if the epoch is marked and has not been measured; whether it was.

        last: whether the training ends here. The last epoch is measured even if it is not marked, and once more if weights have
        changed since it was measured, as where they are averaged or the best ones loaded; a warning says so.
        Raises: InvalidArgument for an epoch that is no whole number from 0 on; MeasurementError as `Scope.measure`.
        """
        return self._measure(epoch_number(epoch), is_last=last)

    def _measure(self, epoch: int, *, is_last: bool) -> bool:
        measured = self.scope.flow.epochs
        if epoch in measured and epoch == measured[0] < measured[-1]:
            warnings.warn(
                f"{self.path} holds epochs {measured[0]} to {measured[-1]} of an earlier training, which are not measured "
                "again: choose another folder if this is another training",
                stacklevel=2,
            )
        if not is_last and (epoch in measured or not self.scope.is_marked(epoch)):
            return False
        weights = broadcast(_digest(self.scope.model) if rank() == 0 else None) or ""
        changed = self._weights.get(epoch, weights) != weights
        if epoch in measured and not changed:
            return False
        if changed:
            warnings.warn(
                f"the weights at the end of the training are not those measured after epoch {epoch}, as where weights are "
                f"averaged: epoch {epoch} is measured again, so that its estimates are of the network that is handed over",
                stacklevel=2,
            )
        estimates = self.scope.measure(epoch)
        self._weights[epoch] = weights
        if rank() == 0:
            RunFolder.open(self.path).write_measurement(epoch, estimates)
            self._follower.update(force=True)
        return True

    def record(
        self,
        epoch: SupportsInt,
        *,
        dice: SupportsFloat = math.nan,
        loss: SupportsFloat = math.nan,
        seconds: SupportsFloat = math.nan,
        dice_per_class: Iterable[SupportsFloat] = (),
    ) -> None:
        """Keep how well the network did after an epoch, for the curves of the page.

        dice: validation Dice, from 0 to 1. loss: validation loss, in whatever unit. seconds: that the epoch took.
        dice_per_class: validation Dice of each class, in their order. NaN stands for what is not known; numbers may be
        Python's, NumPy's or those of tensors.

        Raises: InvalidArgument for an epoch that is no whole number from 0 on, and for another value that cannot be.
        """
        nan = math.nan
        record = EpochRecord(
            epoch_number(epoch),
            nan,
            nan,
            real_number(loss, "loss"),
            real_number(dice, "dice", least=0, most=1),
            real_number(seconds, "seconds", least=0),
            dice_per_class=real_numbers(dice_per_class, "dice_per_class", least=0, most=1),
        )
        if rank() == 0:
            RunFolder.open(self.path).write_epoch(record)
            self._follower.update()


def _digest(network: nn.Module) -> str:
    """What tells two states of a network apart: its weights, and the statistics that its layers keep."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):  # counters change no output
            digest.update(name.encode())
            digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def recorder_of(
    network: nn.Module, probe_set: SegmentationData, out: str | Path, *, track: str | None = None, **scope: Any
) -> Recorder:
    """A recorder of a network, with the arguments of `Scope`; what callbacks of training frameworks begin with."""
    return Recorder(Scope(network, probe_set, **scope), out, track=track)


def _described(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the user says of a training, as a run's configuration keeps it.

    Raises: InvalidArgument for names that the configuration uses itself, or values that JSON cannot hold.
    """
    if "network" in about or not isinstance(about.get("training", {}), Mapping):
        name = "network" if "network" in about else "training"
        raise InvalidArgument(f"about: {name!r} is a word of the run folder's own: take another, such as 'my {name}'")
    try:
        return dict(parse_json(json.dumps(dict(about))))
    except (TypeError, ValueError) as wrong:
        raise InvalidArgument(f"about: {first_line(wrong)}: expected numbers, texts, lists and mappings") from None
