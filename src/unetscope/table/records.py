"""The records of a measurement: layers, skips, estimates, epochs and verdicts, as frozen values."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Literal

from unetscope.table.parts import Part
from unetscope.table.quantities import Decision, Quantity, Rule, Status

if TYPE_CHECKING:
    from unetscope.table.intervals import Interval

Role = Literal["encoder", "bottom", "upsampled", "merge", "decoder", "output", "layer"]


@dataclass(frozen=True, slots=True)
class Layer:
    """One recorded tensor of a network.

    label: its number as the paper counts, such as `"7"` or `"11up"`. module: the dotted name of the module whose output
    it is, or `module:function` for the result of a function that the module calls (`#2` for its second call). level: how many
    times the image has been halved there. role: where in the U it stands (`"layer"` when unknown). parts: for a merge, the
    labels of the layers whose concatenation along the channels it is. shape: of one image's activation,
    `(channels, height, width)`, once it has been seen. sources: the labels of the layers that it is made from, with no other
    recorded layer between; empty for one made from the network's input alone, None where this is not known.

    >>> Layer("11", "merge11", level=3, role="merge", parts=("11up", "8"), shape=(256, 16, 16)).size
    65536
    """

    label: str
    module: str
    level: int = 0
    role: Role = "layer"
    parts: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    sources: tuple[str, ...] | None = field(
        default=None, compare=False
    )  # a run of an older version is of the same network

    @property
    def size(self) -> int:
        """d, the number of values that one image has in this layer (1 for a layer that has not been seen)."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Skip:
    """A tensor carried from an encoder layer to a merge layer, all three by label; `skip1` is the top one.

    >>> Skip("skip1", source="2", upsampled="20up", merge="20").merge
    '20'
    """

    name: str
    source: str
    upsampled: str
    merge: str

    @property
    def part(self) -> Part:
        """The part that its name names. Raises: InvalidArgument for a name that is no skip's."""
        return Part.named(self.name)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number in bits, with what is needed to judge it; values that an estimator does not provide are NaN.

    quantity: of one layer I(X;M), I(Y;M) or the usable information I_V(M→Y); of a merge, by either, what the skip S adds to
    the upsampled path U, what U adds to S, what both hold (negative if both together have more than the sum of each), and what
    S adds to U and to ↓S, the pooled skip, which is all of S that a deeper path receives. Usable information is in bits a
    pixel. estimator: a key of the registry. resolution: the noise variance or the bin size, in units of the activation
    (squared, for the variance); 0 where there is none. labels: the name of the label scheme for I(Y;M), `"pixels"` for usable
    information, empty for I(X;M).

    lower, upper: bracket of the quantity; for usable information its interval, widened by twice the change expected from
    unlimited training images, which is also known out of its domain. ceiling: the largest value the estimate can take.
    saturated: so near the ceiling that layers can no longer be compared. n: images, d: values of the layer an image.
    unique_share: the share of images whose symbol occurs once (binning). singleton_share: the share of images that are alone
    in their class. out_of_domain: whether more images would change the estimate by more than its interval allows. reason: why
    `bits` is NaN, or 0 for a layer that is the same for all, or why the estimate is out of its domain. status: all of this as
    one value.

    quarter_bits, half_bits, extrapolated: the estimate of a quarter and of half of the images, and its limit for many
    images. low, high: 95 % interval of that limit. null_mean, null_high, p: mean and 95th percentile of the estimate with
    masks or labels shuffled among images, and the share of them that reach it. train_bits: of the images that a probe was
    fitted on. per_image: values whose mean is `bits`, one an image, in the same order for all layers of an epoch: what
    paired differences are made of. There are none, and no interval, where an estimate is saturated or out of its domain.
    groups: how many groups of one size the groups of images are worth, if there are groups; then the interval is over groups,
    labels are shuffled in groups, and `per_image` has one value a group. NaN for images that are independent. dice: of usable
    information, the mean Dice that the probe reaches on the held-out images; of what a stream adds at a merge, the Dice of the
    probe with it less that of the probe without it.
    """

    epoch: int
    layer: str
    quantity: Quantity
    estimator: str
    resolution: float
    labels: str
    bits: float
    lower: float
    upper: float
    ceiling: float
    saturated: bool
    n: int
    d: int
    unique_share: float = math.nan
    reason: str = ""
    low: float = math.nan
    high: float = math.nan
    null_mean: float = math.nan
    null_high: float = math.nan
    p: float = math.nan
    train_bits: float = math.nan
    quarter_bits: float = math.nan
    half_bits: float = math.nan
    extrapolated: float = math.nan
    singleton_share: float = math.nan
    out_of_domain: bool = False
    per_image: tuple[float, ...] = ()
    groups: float = math.nan
    dice: float = math.nan

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantity", Quantity(self.quantity))  # a table or a script may name it by its text

    @property
    def comparable(self) -> bool:
        """The old name of `status is Status.OK`; it ends with the next version."""
        warnings.warn("Estimate.comparable is Estimate.status == 'ok' now", DeprecationWarning, stacklevel=2)
        return self.status is Status.OK

    @property
    def status(self) -> Status:
        """Whether the number may be compared with those of other layers, and if not, why; the gravest reason counts."""
        if math.isnan(self.bits):
            return Status.ABSENT
        if self.saturated:
            return Status.SATURATED
        return Status.OUT_OF_DOMAIN if self.out_of_domain else Status.OK

    @property
    def key(self) -> tuple[int, str, str, str, float, str]:
        """What names this estimate within a run; two estimates with one key are the same measurement."""
        return self.epoch, self.layer, self.quantity, self.estimator, self.resolution, self.labels


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """How well the network did after `epoch` epochs of training (epoch 0 is before any).

    The train figures are running means over the epoch's steps, taken while the weights moved (NaN at epoch 0); the
    validation figures are of the whole validation set with the weights at the end of the epoch. Loss: cross-entropy in nats a
    pixel. Dice: of binary masks, hard masks at one half, smooth 1; of class maps, of each image the mean over the classes that
    it has; mean over images. seconds: wall time. validation_range: the largest less the smallest probability of any pixel, 0
    for an output that is constant. dice_per_image: the Dice of each validation image, in their order, NaN for one without a
    label. dice_per_class: of class maps, the mean over the images that have the class, NaN where none has it.
    """

    epoch: int
    train_loss_running: float
    train_dice_running: float
    validation_loss: float
    validation_dice: float
    seconds: float
    validation_range: float = math.nan
    dice_per_image: tuple[float, ...] = ()
    dice_per_class: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of one rule on one skip or level for a training of `epoch` epochs, with the numbers behind it.

    part: a skip, or a level: `level4` is all of the network below skip4. since: the marked epoch from which on the decision has
    been the same. bits: what the part adds, or (plateau rule) I(Y;M) of the merge below, with its 95 % interval and the most
    that it could be; NaN where it is not known. lost: by the rule of the loss, the Dice that a network without the part is
    expected to lose. text: why, for people. measured: of which quantity `bits` is, for people.

    >>> print(Verdict(Part.named("skip1"), 100, "conditional", "redundant", text="it adds 0.001 of 0.6 bits a pixel", since=10))
    skip1 is redundant from epoch 10 on: it adds 0.001 of 0.6 bits a pixel
    """

    part: Part
    epoch: int
    rule: Rule
    decision: Decision
    bits: float = math.nan
    low: float = math.nan
    high: float = math.nan
    ceiling: float = math.nan
    since: int = 0
    estimator: str = ""
    text: str = ""
    measured: str = ""
    lost: Interval | None = None

    def __str__(self) -> str:
        state = "not decided" if self.decision == "undecided" else self.decision
        by = " by the paper's rule" * (self.rule == "plateau")
        return f"{self.part} is {state}{by} from epoch {self.since} on: {self.text}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<p>{escape(str(self))}</p>"
