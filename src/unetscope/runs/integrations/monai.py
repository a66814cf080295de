"""A handler for engines of MONAI and Ignite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from unetscope.activations import world_size
from unetscope.base import MissingDependency, NetworkError
from unetscope.data import SegmentationData
from unetscope.runs.recorder import Recorder, recorder_of
from unetscope.table import Flow

try:
    from ignite.engine import Engine, Events
except ImportError:
    raise MissingDependency('UnetscopeHandler needs MONAI and Ignite: pip install "unetscope[monai]"') from None


class UnetscopeHandler:
    """Measures the network at marked epochs of an Ignite engine, such as MONAI's `SupervisedTrainer`.

    probe_set: the fixed images on which activations are measured. out: the run folder; a training that continues from a
    checkpoint continues it. network: by default the engine's own `network`, as MONAI's trainers have one. dice: the name of
    a metric of the engine, for the curves of the page. Other arguments are those of `unetscope.Scope`.

    Epoch 0 is before any training. Training is the same to the bit with and without. With several processes, the probe set is
    shared out among them.

    >>> UnetscopeHandler(nuclei.probe_set(200), "runs/mine").attach(trainer)                             # doctest: +SKIP
    """

    def __init__(
        self,
        probe_set: SegmentationData,
        out: str | Path,
        *,
        network: nn.Module | None = None,
        dice: str = "val_mean_dice",
        **scope: Any,
    ) -> None:
        self.probe_set, self.out, self.network, self.dice, self.options = probe_set, out, network, dice, scope
        self.recorder: Recorder | None = None

    @property
    def flow(self) -> Flow:
        """All that was measured so far."""
        return Flow((), (), ()) if self.recorder is None else self.recorder.flow

    def attach(self, engine: Engine) -> None:
        """Measure whenever the engine begins, and whenever it has completed a marked epoch."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._completed)

    def _started(self, engine: Engine) -> None:
        network = self.network or getattr(engine, "network", None)
        if not isinstance(network, nn.Module):
            raise NetworkError(f"{type(engine).__name__} holds no network: UnetscopeHandler(..., network=...) names it")
        self.recorder = recorder_of(network, self.probe_set, self.out, **({"share": world_size() > 1} | self.options))
        if engine.has_event_handler(self._ended, Events.COMPLETED):
            engine.remove_event_handler(self._ended, Events.COMPLETED)
        engine.add_event_handler(Events.COMPLETED, self._ended)  # after the handlers that may yet change the weights
        if engine.state.epoch == 0:
            self.recorder.measure(0)

    def _completed(self, engine: Engine) -> None:
        assert self.recorder is not None
        self.recorder.measure(engine.state.epoch)
        if self.dice in engine.state.metrics:
            self.recorder.record(engine.state.epoch, dice=float(engine.state.metrics[self.dice]))

    def _ended(self, engine: Engine) -> None:
        assert self.recorder is not None
        self.recorder.measure(engine.state.epoch, last=True)
