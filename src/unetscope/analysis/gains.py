"""What the skip and the deeper path add at each merge, from the table of estimates."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from unetscope.table import LEVEL, SKIP, Estimate, Flow, Part, Quantity, Skip, Status

FEWEST_IMAGES_OF_DICE = 50  # held out: losses were expected with 65 and 100, and vary as much more of fewer
LEARNT_SHARE = 0.1  # of the ceiling: with less usable information in its output a network has not learnt


@dataclass(frozen=True, slots=True)
class Gain:
    """What a stream adds at a merge: its estimate, or None if there is none.

    part: the stream, the skip or the deeper path that it meets. output_bits: usable information of the network's output, NaN if
    not known. unlearnt: why the numbers of this epoch cannot be used, if so. upsampled: the layer of the deeper path there.
    """

    part: Part
    row: Estimate | None
    output_bits: float = math.nan
    unlearnt: str = ""
    upsampled: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """Its interval, or its bracket if too few images leave no interval; NaN without either."""
        if self.unlearnt or self.row is None:
            return math.nan, math.nan
        has_interval = math.isfinite(self.row.low)
        return (self.row.low, self.row.high) if has_interval else (self.row.lower, self.row.upper)

    @property
    def is_known(self) -> bool:
        """Whether it can be judged."""
        return (
            all(map(math.isfinite, self.interval))
            and self.row is not None
            and self.whole > 0
            and self.row.status is not Status.SATURATED
        )

    @property
    def whole(self) -> float:
        """Bits of which a loss is a share: those of the output, or where they are not known the ceiling."""
        ceiling = math.nan if self.row is None else self.row.ceiling
        return ceiling if math.isnan(self.output_bits) else min(self.output_bits, ceiling)

    @property
    def share(self) -> float:
        """The most that it may add, as a share."""
        return self.interval[1] / self.whole

    @property
    def least_share(self) -> float:
        """The least that it may add, as a share."""
        return self.interval[0] / self.whole

    @property
    def dice(self) -> float:
        """The Dice that probes gain by it; NaN where it was not measured, on too few images or groups of them to tell, or where
        nothing has been learnt.
        """
        if self.row is None or self.unlearnt:
            return math.nan
        images = self.row.n if math.isnan(self.row.groups) else self.row.groups
        return self.row.dice if images >= FEWEST_IMAGES_OF_DICE else math.nan

    @property
    def skip(self) -> Part:
        """The skip at its merge."""
        return self.part.beside(SKIP)

    @property
    def receiver(self) -> str:
        """What it adds to, for people."""
        return "the deeper path" if self.part.is_skip else f"{self.skip}"

    @property
    def text(self) -> str:
        """What adds to what, for people."""
        return f"{self.part if self.part.is_skip else 'the deeper path'} adds to {self.receiver}"

    @property
    def reason(self) -> str:
        """Why it is not known."""
        if self.unlearnt:
            return self.unlearnt
        if self.row is None:
            return (
                "it was not measured: `unetscope measure RUN --merge-probes` does, or in Python a Scope with held_out"
            )
        return self.row.reason


Gains = Mapping[int, Mapping[Part, Gain]]  # by epoch and stream


def bounds_of(part: Part, gains: Mapping[Part, Gain], removed: Collection[Part] = ()) -> list[Gain]:
    """The gains that a part adds no more than: of a skip its own first, and those of the deeper paths that it belongs to; of a
    level those of the deeper paths at its skip and above.

    gains: of an epoch. removed: skips that are not there to make what the deeper path adds small.
    """
    # A skip belongs to the deeper path of every skip that joins after it, a level to that of its own skip too.
    deeper = [
        gain
        for level, gain in gains.items()
        if not level.is_skip
        and gain.skip not in removed
        and (level.depth < part.depth or level == part)
        and (level == part or not part.is_skip or gain.upsampled != gains[part].upsampled)
    ]
    return [gains[part], *deeper] if part.is_skip else deeper


def probed_loss(removed: Sequence[Part], gains: Mapping[Part, Gain]) -> float:
    """The Dice that probes lose without one part: the least of its bounds; NaN if none is known, or of several parts.

    What is shown more tells no less: a gain below 0 is of the fit, and counts as 0.

    removed: a skip, or levels, the shallowest first, with which all below go.
    """
    skips = sum(part.is_skip for part in removed)
    if skips + (skips < len(removed)) != 1 or (skips and removed[0] not in gains):
        return math.nan
    known = [gain.dice for gain in bounds_of(removed[0], gains) if math.isfinite(gain.dice)]
    return max(0.0, min(known)) if known else math.nan


def probed_epochs(gains: Gains) -> tuple[int, ...]:
    """The epochs at which any stream was measured at its merge, ascending."""
    return tuple(
        epoch for epoch, of_epoch in sorted(gains.items()) if any(gain.row is not None for gain in of_epoch.values())
    )


def stream_gains(flow: Flow, skips: Sequence[Skip], epochs: Sequence[int], estimator: str) -> Gains:
    """What both streams of every skip's merge add at every epoch, whether it was measured or not."""
    rows = {(row.epoch, row.layer, row.quantity): row for row in flow.select(estimator=estimator).estimates}
    outputs = output_information(flow, epochs)
    of_epoch: dict[int, dict[Part, Gain]] = {}
    for epoch in epochs:
        output_bits, unlearnt = outputs[epoch]
        of_epoch[epoch] = {
            part: Gain(part, rows.get((epoch, skip.merge, quantity)), output_bits, unlearnt, skip.upsampled)
            for skip in skips
            for part, quantity in (
                (skip.part, Quantity.USABLE_SKIP_GIVEN_POOLED),
                (skip.part.beside(LEVEL), Quantity.USABLE_UPSAMPLED_GIVEN_SKIP),
            )
        }
    return of_epoch


def output_information(flow: Flow, epochs: Sequence[int]) -> dict[int, tuple[float, str]]:
    """By epoch, usable information of the output, NaN if not known, and why the epoch cannot be used if it is too little."""
    outputs = [layer.label for layer in flow.layers if layer.role == "output"]
    rows: dict[int, list[Estimate]] = {epoch: [] for epoch in epochs}
    for row in flow.select(quantity=Quantity.USABLE).estimates:
        if row.layer in outputs and row.epoch in rows:
            rows[row.epoch].append(row)
    return {epoch: _best_of_output(of_epoch) for epoch, of_epoch in rows.items()}


def _best_of_output(rows: Sequence[Estimate]) -> tuple[float, str]:
    """The most that any family of probes reads from the output, and why it cannot be used."""
    bits = math.nan
    for row in rows:
        if not row.bits >= LEARNT_SHARE * row.ceiling:
            so_far = f"the network tells {row.bits:z.3f} of {row.ceiling:z.3f} bits a pixel so far, next to nothing"
            return math.nan, f"what the network tells is not known: {row.reason}" if math.isnan(row.bits) else so_far
        bits = row.bits if math.isnan(bits) else max(bits, row.bits)
    return bits, ""
