"""A callback for Lightning."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unetscope.activations import device_of
from unetscope.base import MissingDependency, NetworkError
from unetscope.data import SegmentationData
from unetscope.runs.recorder import Recorder, recorder_of
from unetscope.table import Flow

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]
    except ImportError:
        raise MissingDependency('UnetscopeCallback needs lightning: pip install "unetscope[lightning]"') from None


class UnetscopeCallback(Callback):
    """Measures the network at marked epochs of a Lightning training, and keeps the estimates in a run folder.

    probe_set: the fixed images on which activations are measured. out: the run folder; a training that continues from a
    checkpoint continues it. network: the attribute of the module that holds the network, by default the module itself.
    dice, loss: names of logged validation metrics, for the curves of the page. Other arguments are those of `unetscope.Scope`.

    Epoch 0 is before any training. Training is the same to the bit with and without. With several processes, the probe set is
    shared out among them.

    >>> from lightning.pytorch import Trainer                                                            # doctest: +SKIP
    >>> Trainer(callbacks=[UnetscopeCallback(nuclei.probe_set(200), "runs/mine", network="net")])        # doctest: +SKIP
    """

    def __init__(
        self,
        probe_set: SegmentationData,
        out: str | Path,
        *,
        network: str = "",
        dice: str = "val_dice",
        loss: str = "val_loss",
        **scope: Any,
    ) -> None:
        self.probe_set, self.out, self.network, self.options = probe_set, out, network, scope
        self.metrics = {"dice": dice, "loss": loss}
        self.recorder: Recorder | None = None
        self._epoch = 0

    @property
    def flow(self) -> Flow:
        """All that was measured so far."""
        return Flow((), (), ()) if self.recorder is None else self.recorder.flow

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look into the network, and measure it before it is trained."""
        network: Any = pl_module
        for name in filter(None, self.network.split(".")):
            if not hasattr(network, name):
                raise NetworkError(f"{type(network).__name__} has no attribute {name!r}: name where the network is")
            network = getattr(network, name)
        options = {"share": trainer.world_size > 1} | self.options
        self._epoch = 0
        self.recorder = recorder_of(network, self.probe_set, self.out, **options)
        if trainer.current_epoch == 0:
            self.recorder.measure(0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network after a marked epoch."""
        assert self.recorder is not None
        epoch = self._epoch = trainer.current_epoch + 1
        self.recorder.measure(epoch)
        scores: dict[str, Any] = {
            name: float(trainer.callback_metrics[metric])
            for name, metric in self.metrics.items()
            if metric in trainer.callback_metrics
        }
        if math.isinf(scores.get("loss", 0.0)):  # of a training that diverges, which a curve cannot show
            scores["loss"] = math.nan
        if scores:
            self.recorder.record(epoch, **scores)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network as it is handed over: callbacks that average weights have put the averages into it by now.

        Lightning has moved the network to the CPU by now; it is measured where it was trained.
        """
        if self.recorder is None or not self._epoch:
            return
        device = device_of(pl_module)
        pl_module.to(trainer.strategy.root_device)
        try:
            self.recorder.measure(self._epoch, last=True)
        finally:
            pl_module.to(device)
