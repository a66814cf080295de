"""The images that probes are fitted and judged on: folds, batches, and which of their places and pixels are taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Bool, Float, Int16, Int64, Integer
from torch import Tensor

from unetscope.activations import own_share
from unetscope.base import InvalidArgument
from unetscope.estimators import Groups, Truth, blocks_of, guessed, ratios

FOLDS = 4
PLACES_AN_IMAGE = 256  # at most, that a probe is fitted on: neighbouring places are similar
CALIBRATION_IMAGES, CALIBRATION_PIXELS = 64, 128  # the latter of each of the former
SPARSE = 0.5  # of the pixels: of masks with fewer labels a probe is fitted on all of them

Grid = tuple[int, ...]  # the locations of a layer along each side


class Share(Enum):
    """How much of the training images a probe is fitted on, by the numbers of the folds."""

    QUARTER = (0,)
    HALF = (0, 1)
    WHOLE = tuple(range(FOLDS))


class Pass(Enum):
    """What a forward pass over some of the images is for."""

    FIRST = "first"  # units are drawn from the first batch, the same in all processes
    MOMENTS = "moments"
    CALIBRATION = "calibration"
    HELD_OUT = "held out"


@dataclass(frozen=True)
class Segmented:
    """Images as `prepare` takes them, with the labels of their pixels, [n, *sides]: 0 … classes − 1, or `ignored`.

    groups: the number of each image's group, None if images are independent of each other.
    """

    images: Tensor
    masks: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None
    ignored: int | None = None
    groups: Int64[Tensor, " n"] | None = None

    @property
    def labelled(self) -> Bool[Tensor, n * sides]:
        """The pixels that are not ignored."""
        return _labelled(self.masks, self.ignored)


@dataclass(frozen=True)
class SampledPlaces:
    """Some of the places of a batch that a probe is fitted on, of which it keeps the features.

    number: which of them. labels: of the pixels above, −1 for those without one. image: the training image's number.
    """

    number: Int64[Tensor, " s"]
    labels: Int16[Tensor, "s pixels"]
    image: Int64[Tensor, " s"]


@dataclass(frozen=True)
class Targets:
    """What is predicted at the places of a batch that a probe is fitted on.

    indicators: of every class but the last for each pixel above a place. places: their numbers, None for all of them. sampled:
    those of which features are kept, None if probes of this grid keep none.
    """

    indicators: Float[Tensor, "m outputs"]
    places: Int64[Tensor, " m"] | None
    sampled: SampledPlaces | None


@dataclass(frozen=True)
class CalibrationPixels:
    """Some pixels of a batch of training images.

    place: the place below each. output: its number among the pixels of that place. counted: whether it has a label.
    labels: of those that have one.
    """

    place: Int64[Tensor, " m"]
    output: Int64[Tensor, " m"]
    counted: Bool[Tensor, " m"]
    labels: Int64[Tensor, " k"]


class ProbeData:
    """Training images in folds, held-out images, and the places and pixels drawn from them, the same for every layer.

    Of images in groups, whole groups are in one fold. share: the processes of a group share the batches.

    Raises: InvalidArgument for masks that do not fit their images or the number of classes.
    """

    def __init__(
        self,
        train: Segmented,
        held_out: Segmented,
        *,
        classes: int,
        batch_size: int,
        seed: int,
        share: bool,
        device: torch.device,
    ) -> None:
        for part, data in (("training", train), ("held-out", held_out)):
            _check(part, data, classes)
        self.train, self.held_out, self.classes, self.seed, self.device = train, held_out, classes, seed, device
        labelled = torch.nonzero(train.labelled.flatten(1).any(dim=1))[:, 0]
        folds = self._folds(labelled)
        self.fitted_on = len(labelled)
        self.held_out_groups = None if held_out.groups is None else Groups.of(held_out.groups)
        self.fold_of = torch.full((len(train.images),), -1)
        for fold, rows in enumerate(folds):
            self.fold_of[rows] = fold
        each = max(1, CALIBRATION_IMAGES // FOLDS)
        self.batches: dict[Pass, list[Tensor]] = {
            # a batch has images of one fold only, so that its moments are those of the fold
            Pass.MOMENTS: [batch for rows in folds for batch in rows.split(batch_size)],
            Pass.CALIBRATION: [batch for rows in folds for batch in self._some(rows, each).split(batch_size)],
            Pass.HELD_OUT: list(torch.arange(len(held_out.images)).split(batch_size)),
        }
        if share:
            first = self.batches[Pass.MOMENTS][:1]
            self.batches = {Pass.FIRST: first} | {name: own_share(batches) for name, batches in self.batches.items()}
        self.frequencies = self._class_frequencies()
        self.unseen = [
            str(label)
            for label in range(classes)
            if self.frequencies[label] == 0 and bool((held_out.masks == label).any())
        ]
        self._sparse = bool(train.labelled.double().mean() < SPARSE)
        self._fitted_places: dict[Grid, Tensor] = {}
        self._targets: dict[Grid, Targets] = {}  # of the batch at hand
        self._pixels: dict[Grid, CalibrationPixels] = {}  # likewise
        self._sampled_shares: dict[Grid, float] = {}

    def _folds(self, labelled: Int64[Tensor, " m"]) -> list[Int64[Tensor, " k"]]:
        """The images with labels, in folds by chance; a whole group goes to the fold that has the fewest images."""
        generator = torch.Generator().manual_seed(self.seed)
        self.too_few_groups = ""
        if self.train.groups is None:
            order = labelled[torch.randperm(len(labelled), generator=generator)]
            return [rows.sort().values for rows in order.tensor_split(FOLDS)]
        groups = Groups.of(self.train.groups[labelled])
        if groups.count < FOLDS:
            few = f"{groups.count} groups of training images are too few"
            self.too_few_groups = f"{few}: probes are fitted in {FOLDS} folds of whole groups"
        of_group, sizes = torch.zeros(groups.count, dtype=torch.int64), torch.zeros(FOLDS, dtype=torch.int64)
        for group in torch.randperm(groups.count, generator=generator).tolist():
            of_group[group] = fold = int(sizes.argmin())
            sizes[fold] += groups.sizes[group]
        return [labelled[of_group[groups.of_image] == fold] for fold in range(FOLDS)]

    def _some(self, rows: Int64[Tensor, " k"], most: int) -> Int64[Tensor, " m"]:
        """At most so many images of a fold, spread over its groups if there are groups."""
        if self.train.groups is None or len(rows) <= most:
            return rows[:most]
        return rows[torch.linspace(0, len(rows) - 1, most).long()]

    def of(self, name: Pass) -> Segmented:
        """The images of a pass."""
        return self.held_out if name is Pass.HELD_OUT else self.train

    def next_batch(self) -> None:
        """Discard what was drawn for the previous batch."""
        self._targets, self._pixels = {}, {}

    def outputs(self, grid: Grid) -> int:
        """How many numbers a probe predicts at a place: of every class but the last, for each pixel above it."""
        return math.prod(ratios(grid, self.train.masks.shape[1:])) * (self.classes - 1)

    def targets(self, rows: Int64[Tensor, " b"], grid: Grid) -> Targets:
        """What the batch's layers of this grid are fitted on."""
        if grid not in self._targets:
            blocks = blocks_of(self.train.masks[rows], grid)  # [b · places, pixels above a place]
            places = self._places_fitted(grid)
            if places is not None:
                places = (math.prod(grid) * torch.arange(len(rows))[:, None] + places).reshape(-1)
                blocks = blocks[places]
            indicators, kept = _indicators(blocks, self.classes, self.train.ignored)
            of_image = rows.repeat_interleave(len(blocks) // len(rows))
            if kept is not None:
                places = torch.arange(len(blocks))[kept] if places is None else places[kept]
                blocks, of_image = blocks[kept], of_image[kept]
            on_device = None if places is None else places.to(self.device)
            self._targets[grid] = Targets(indicators.to(self.device), on_device, self._sampled(grid, blocks, of_image))
        return self._targets[grid]

    def sample(self, grid: Grid, places: int) -> None:
        """Have `targets` name about so many places of all training images, each as likely as any other; none of 0."""
        if places:
            masks = self.train.masks[self.fold_of >= 0]
            fitted = self._places_fitted(grid)
            if self.train.ignored is None:
                all_places = len(masks) * (math.prod(grid) if fitted is None else len(fitted))
            else:
                labelled = blocks_of(masks != self.train.ignored, grid).any(dim=1).reshape(len(masks), -1)
                all_places = int((labelled if fitted is None else labelled[:, fitted]).sum())
            self._sampled_shares[grid] = min(1.0, places / max(1, all_places))

    def _sampled(
        self, grid: Grid, blocks: Integer[Tensor, "m pixels"], of_image: Int64[Tensor, " m"]
    ) -> SampledPlaces | None:
        """The same places of an image in every batch: drawn image by image."""
        if grid not in self._sampled_shares:
            return None
        images, counts = of_image.unique_consecutive(return_counts=True)
        numbers, first = [], 0
        for image, count in zip(images.tolist(), counts.tolist(), strict=True):
            generator = torch.Generator().manual_seed(self.seed + image)
            drawn = torch.randperm(count, generator=generator)[: math.ceil(count * self._sampled_shares[grid])]
            numbers.append(first + drawn.sort().values)
            first += count
        number = (
            torch.cat(numbers) if numbers else torch.zeros(0, dtype=torch.int64)
        )  # no place of the batch is labelled
        labels = blocks[number].to(torch.int16)
        if self.train.ignored is not None:
            labels[blocks[number] == self.train.ignored] = -1
        return SampledPlaces(number, labels, of_image[number])

    def _places_fitted(self, grid: Grid) -> Tensor | None:
        """Some places of an image, if there are too many: the same for all layers of a grid."""
        places = math.prod(grid)
        if places <= PLACES_AN_IMAGE or self._sparse:
            return None
        if grid not in self._fitted_places:
            drawn = torch.randperm(places, generator=torch.Generator().manual_seed(self.seed))[:PLACES_AN_IMAGE]
            self._fitted_places[grid] = drawn.sort().values
        return self._fitted_places[grid]

    def pixels(self, rows: Int64[Tensor, " b"], grid: Grid) -> CalibrationPixels:
        """Some pixels of a batch, the same for all layers, however many images the batch has."""
        if grid not in self._pixels:
            sides = self.train.masks.shape[1:]
            drawn, counted = zip(*(self._pixels_of(int(row)) for row in rows), strict=True)
            pixels, valid = torch.stack(drawn), torch.stack(counted).reshape(-1)  # [b, pixels], [b · pixels]
            labels = self.train.masks[rows].reshape(len(rows), -1).gather(1, pixels).long().reshape(-1)
            above = math.prod(sides) // math.prod(grid)
            order = _places(sides, grid)[pixels]  # pixels numbered place by place
            place = (order // above + math.prod(grid) * torch.arange(len(rows))[:, None]).reshape(-1)
            output = (order % above).reshape(-1)
            self._pixels[grid] = CalibrationPixels(
                place.to(self.device), output.to(self.device), valid.to(self.device), labels[valid]
            )
        return self._pixels[grid]

    def _pixels_of(self, row: int) -> tuple[Tensor, Tensor]:
        """Some pixels of a training image, and which of them count: its share of labelled ones, and at least one."""
        generator = torch.Generator().manual_seed(self.seed + row)
        labelled = _labelled(self.train.masks[row], self.train.ignored).flatten()
        if bool(labelled.all()):
            pixels = torch.randint(len(labelled), (CALIBRATION_PIXELS,), generator=generator)
            return pixels, torch.ones_like(pixels, dtype=torch.bool)
        pixels = torch.multinomial(labelled.float(), CALIBRATION_PIXELS, replacement=True, generator=generator)
        count = math.ceil(CALIBRATION_PIXELS * labelled.float().mean().item())
        return pixels, torch.arange(CALIBRATION_PIXELS) < count

    def _class_frequencies(self) -> Float[Tensor, " classes"]:
        counts = torch.stack([(self.train.masks == label).sum() for label in range(self.classes)]).double()
        return counts / counts.sum()

    def guess(self) -> Float[Tensor, " n"]:
        """Cross-entropy in nats of each held-out image under the frequencies of the training masks."""
        total = int(self.train.labelled.sum())
        smoothed = (self.frequencies * total + 1) / (total + self.classes)
        return guessed(self.held_out.masks.reshape(len(self.held_out.masks), -1), smoothed)

    def truth(self, grid: Grid) -> Truth:
        """The held-out masks in the order of the places of a grid."""
        masks = self.held_out.masks
        blocks = blocks_of(masks, grid).reshape(len(masks), -1)
        return Truth(blocks.to(self.device), self.classes, self.held_out.ignored)


def _labelled(masks: Tensor, ignored: int | None) -> Tensor:
    return torch.ones_like(masks, dtype=torch.bool) if ignored is None else masks != ignored


def _check(part: str, data: Segmented, classes: int) -> None:
    if len(data.images) != len(data.masks):
        raise InvalidArgument(f"{len(data.masks)} {part} masks for {len(data.images)} images: expected one an image")
    if data.ignored is not None and 0 <= data.ignored < classes:
        raise InvalidArgument(f"ignored pixels have label {data.ignored}, which is that of a class: 0 to {classes - 1}")
    labels = data.masks if data.ignored is None else data.masks[data.labelled]
    if not len(labels):
        raise InvalidArgument(f"the {part} masks have no pixel that is not ignored")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InvalidArgument(
            f"the {part} masks have labels {int(labels.min())} to {int(labels.max())}: expected 0 to {classes - 1}"
        )


def _indicators(blocks: Tensor, classes: int, ignored: int | None) -> tuple[Tensor, Tensor | None]:
    """Indicators of every class but the last for each pixel of a block, [m, r·r·(classes − 1)], and the places to keep.

    An ignored pixel counts as the mean of the others in its block; a block of nothing else is left out.
    """
    hot = torch.stack([blocks == label for label in range(classes - 1)], dim=2).float()  # [m, pixels, classes − 1]
    if ignored is None or not bool((blocks == ignored).any()):
        return hot.flatten(1), None
    labelled = (blocks != ignored)[..., None].float()
    kept = labelled.sum(dim=1)[:, 0] > 0
    hot, labelled = hot[kept], labelled[kept]
    mean = (hot * labelled).sum(dim=1, keepdim=True) / labelled.sum(dim=1, keepdim=True)
    return torch.where(labelled > 0, hot, mean).flatten(1), kept


def _places(sides: Sequence[int], grid: Grid) -> Int64[Tensor, " pixels"]:
    """Of every pixel, row by row, its place in the order of the blocks."""
    order = blocks_of(torch.arange(math.prod(sides)).reshape(1, *sides), grid).reshape(-1)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
