"""A run folder for a network that somebody else trains: what is measured is kept, whole or not at all."""

from __future__ import annotations

import atexit
import math
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unetscope import __version__
from unetscope.activations.distributed import broadcast, rank
from unetscope.base.errors import RunFolderError
from unetscope.data.segmentation import SegmentationData
from unetscope.measure.scope import Scope
from unetscope.runs.folder import RunFolder
from unetscope.runs.trackers import Follower, check_tracker
from unetscope.table.flow import Flow
from unetscope.table.records import EpochRecord, estimator_text


class Recorder:
    """Measures at marked epochs and keeps what it finds in a run folder, which `unetscope verdict`, `report` and `export` read.

    scope: what to measure. out: the run folder; if it is there already, what it holds is taken up and not measured again, so a
    training that was killed goes on where it was. about: what else the page is to say of the run, such as learning rates.
    track: `"tensorboard"`, `"mlflow"` or `"wandb"`, which is given what is kept, in the run folder and without network.

    Under a process group every process has a recorder and calls it; the first one writes.
    Raises: RunFolderError if the folder is occupied, or holds another network's layers.

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
            self._begin(dict(about or {}))
        self._follower = Follower(RunFolder(self.path), track if rank() == 0 else None, warnings.warn)
        atexit.register(self._follower.close)
        scope.recall(broadcast(RunFolder.open(self.path).flow() if rank() == 0 else None) or Flow((), (), ()))

    def _begin(self, about: dict[str, Any]) -> None:
        if RunFolder.exists(self.path):
            layers = RunFolder.open(self.path).flow().layers
            if layers and layers != self.scope.layers:
                raise RunFolderError(f"{self.path} holds the layers of another network: choose another folder")
            known = RunFolder.open(self.path).facts
            for part, data in (("probe set", self.scope.probe_set), ("held out", self.scope.held_out)):
                fingerprint = known.get("data", {}).get(part, {}).get("fingerprint")
                if fingerprint != (None if data is None else data.fingerprint):
                    raise RunFolderError(f"{self.path} was measured on other images ({part}): choose another folder")
            if known.get("measured by", self._measured_by) != self._measured_by:
                raise RunFolderError(f"{self.path} was measured by other estimators or labels: choose another folder")
        else:
            facts = {
                "data": {"probe set": _of(self.scope.probe_set)}
                | ({} if self.scope.held_out is None else {"held out": _of(self.scope.held_out)}),
                "measured by": self._measured_by,
                "versions": {
                    "unetscope": __version__, "torch": torch.__version__, "python": platform.python_version(),
                },
            }  # fmt: skip
            network = {"network": {"class": type(self.scope.model).__name__, "trained by": "its own loop"}}
            RunFolder.create(self.path, {"configuration": network | about, "facts": facts})
        RunFolder.open(self.path).describe(self.scope.layers, self.scope.skips)

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
        """All that was measured, earlier runs of the same training among it."""
        return self.scope.flow

    def measure(self, epoch: int, *, last: bool = False) -> bool:
        """Measure the network as it is now, if the epoch is marked and has not been measured; whether it was.

        last: of the training, an epoch that is measured though it is not marked.
        Raises: MeasurementError as `Scope.measure`.
        """
        there = self.scope.flow.epochs
        if epoch in there and epoch == there[0] < there[-1]:
            warnings.warn(
                f"{self.path} holds epochs {there[0]} to {there[-1]} of an earlier training, which are not measured again: "
                "choose another folder if this is another training",
                stacklevel=2,
            )
        if not (last or self.scope.is_marked(epoch)) or epoch in there:
            return False
        estimates = self.scope.measure(epoch)
        if rank() == 0:
            RunFolder.open(self.path).write_measurement(epoch, estimates)
            self._follower.update(force=True)
        return True

    def record(self, epoch: int, *, dice: float = math.nan, loss: float = math.nan, seconds: float = math.nan) -> None:
        """Keep how well the network did after an epoch: validation Dice and loss, for the curves of the page."""
        if rank() == 0:
            nan = math.nan
            RunFolder.open(self.path).write_epoch(EpochRecord(epoch, nan, nan, loss, dice, seconds))
            self._follower.update()


def recorder_of(
    network: nn.Module, probe_set: SegmentationData, out: str | Path, *, track: str | None = None, **scope: Any
) -> Recorder:
    """A recorder of a network, with the arguments of `Scope`; what callbacks of training frameworks begin with."""
    return Recorder(Scope(network, probe_set, **scope), out, track=track)


def _of(data: SegmentationData) -> dict[str, Any]:
    return {
        "source": data.source, "images": len(data), "channels": data.channels, "image size": list(data.image_size),
        "classes": data.classes, "foreground share": data.foreground_share, "fingerprint": data.fingerprint,
    }  # fmt: skip
