"""Probes of every layer of a network, fitted and judged in passes over its images.

Pass one takes every layer's moments on the training images, in folds; all probes follow. Pass two, over a sample of the
training images, calibrates them on folds that they have not seen; pass three judges them on the held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unetscope.activations.capture import device_of, visit
from unetscope.activations.distributed import all_gather, all_reduce, own_share
from unetscope.base.errors import InvalidArgument, MeasurementError
from unetscope.estimators.families import ConvolutionalReader, Family, Linear, PartAlone, Reader
from unetscope.estimators.moments import Moments, blocks_of, features_of, folded, folded_channels, halved, ratios
from unetscope.estimators.reading import Reading
from unetscope.estimators.resampling import extrapolated, negligible, too_few, turned
from unetscope.estimators.usable import (
    Calibration,
    HeldOut,
    LinearProbe,
    Truth,
    cross_validated,
    guessed,
    ridge,
    shuffled_masks,
)
from unetscope.table.intervals import ratio_values, student
from unetscope.table.quantities import Quantity
from unetscope.table.records import Layer, Skip

FOLDS = 4
SHARES = {"quarter": (0,), "half": (0, 1), "whole": tuple(range(FOLDS))}  # the folds that a probe is fitted on
PLACES_AN_IMAGE = 256  # at most, that a probe is fitted on: neighbours say much the same
CALIBRATION_IMAGES, CALIBRATION_PIXELS = 64, 128  # the latter of each of the former
FEWEST_JUDGED = 5  # held-out images: of fewer, Student's interval rests on their being normal
SMALLEST_GAP = 0.005  # nats a pixel that a probe may always be short of one of ever more images
UNSURE = 2.0  # how many times what ever more images would change the bracket is stretched by
SPARSE = 0.5  # of the pixels: of masks with fewer labels a probe is fitted on all of them
ROUNDING = 1e-6  # of a mean: a spread below it is none
LINEAR = Linear()
MOST_POOLED = 64  # channels of a stream that is read beside the skip pooled, where each counts for all places below
DEAD_LAYER = "the layer is the same at every place of every image"
ONE_CLASS = "every pixel of the training masks has the same label"


@dataclass(frozen=True)
class Segmented:
    """Images as `prepare` takes them, with the labels of their pixels, [n, *sides]: 0 … classes − 1, or `ignored`."""

    images: Tensor
    masks: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None
    ignored: int | None = None


@dataclass
class _Probes:
    """What is known of one layer as the passes go on."""

    layer: Layer
    reader: Reader
    folds: list[Moments]
    fitted: dict[str, LinearProbe] = field(default_factory=dict)
    scores: dict[str, list[Tensor]] = field(default_factory=dict)
    labels: dict[str, list[Tensor]] = field(default_factory=dict)
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    held_out: dict[str, HeldOut] = field(default_factory=dict)
    on_training: dict[str, float] = field(default_factory=dict)

    @property
    def grid(self) -> tuple[int, ...]:
        return self.layer.shape[1:]

    @property
    def outputs(self) -> int:
        return self.folds[0].cross.shape[1]


def probe(
    model: nn.Module,
    train: Segmented,
    held_out: Segmented,
    layers: Sequence[Layer],
    skips: Sequence[Skip] = (),
    *,
    family: Family = LINEAR,
    classes: int = 2,
    batch_size: int = 16,
    seed: int = 0,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, list[Reading]]:
    """Usable information of each layer, and what each skip and its upsampled path add to each other, by label of the layer.

    layers: with their shapes known; a merge is probed through its parts. A probe of N training images is judged beside those
    of N/2 and N/4, which tells where it would end with ever more of them. The same seed gives the same folds. share: the
    processes of a group share the images, and all have the readings.

    Raises: MeasurementError if an activation is not finite, naming the layer; InvalidArgument for masks that do not fit.
    """
    return _Probing(
        model, train, held_out, layers, skips, family, classes, batch_size, seed, share, on_batch
    ).readings()


class _Probing:
    def __init__(
        self,
        model: nn.Module,
        train: Segmented,
        held_out: Segmented,
        layers: Sequence[Layer],
        skips: Sequence[Skip],
        family: Family,
        classes: int,
        batch_size: int,
        seed: int,
        share: bool,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        for part, data in (("training", train), ("held-out", held_out)):
            _check(part, data, classes)
        self._model, self._train, self._held_out, self._classes = model, train, held_out, classes
        self._family, self._estimator = family, f"usable_{family.name}"
        self._layers, self._captured = layers, [layer for layer in layers if not layer.parts]
        labels = {layer.label for layer in layers}
        self._skips = [skip for skip in skips if labels >= {skip.source, skip.upsampled, skip.merge}]
        labelled = torch.nonzero(_labelled(train.masks, train.ignored).flatten(1).any(dim=1))[:, 0]
        order = labelled[torch.randperm(len(labelled), generator=torch.Generator().manual_seed(seed))]
        self._fold_rows = [rows.sort().values for rows in order.tensor_split(FOLDS)]
        each = max(1, CALIBRATION_IMAGES // FOLDS)
        self._batches = {
            "moments": [batch for rows in self._fold_rows for batch in rows.split(batch_size)],
            "calibration": [batch for rows in self._fold_rows for batch in rows[:each].split(batch_size)],
            "held out": list(torch.arange(len(held_out.images)).split(batch_size)),
        }
        self._share = share
        if share:  # what is drawn from the first images seen has to be the same in all processes
            self._batches = {"first": self._batches["moments"][:1]} | {
                name: own_share(batches) for name, batches in self._batches.items()
            }
        self._fold_of = torch.full((len(train.images),), -1)
        for fold, rows in enumerate(self._fold_rows):
            self._fold_of[rows] = fold
        self._seed, self._on_batch, self._done = seed, on_batch, 0
        self._fitted_on = len(order)
        self._sparse = bool(_labelled(train.masks, train.ignored).double().mean() < SPARSE)
        self._frequencies = self._class_frequencies()
        self._unseen = [
            str(label)
            for label in range(classes)
            if self._frequencies[label] == 0 and bool((held_out.masks == label).any())
        ]
        self._shared: dict[tuple[int, ...], tuple[Tensor, Tensor | None]] = {}  # of a batch, by grid
        self._pixels: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor, Tensor]] = {}  # likewise
        self._some_places: dict[tuple[int, ...], Tensor] = {}
        self._directions: dict[tuple[str, str], Tensor] = {}
        self._reasons: dict[str, str] = {}
        self._probes: dict[str, _Probes] = {}
        for layer in layers:
            self._begin(layer)
        self._pooled = {skip.merge: _pooled_label(skip.merge) for skip in self._skips if self._begin_pooled(skip)}

    def _begin(self, layer: Layer) -> None:
        try:
            ratios(layer.shape[1:], self._train.masks.shape[1:])
        except InvalidArgument as unfit:
            self._reasons[layer.label] = str(unfit)
            return
        if self._fitted_on < FOLDS:
            self._reasons[layer.label] = (
                f"{self._fitted_on} training images with labels: a probe needs at least {FOLDS}"
            )
            return
        if (self._frequencies > 0).sum() < 2:
            self._reasons[layer.label] = ONE_CLASS
            return
        known = [self._probes[part] for part in layer.parts if part in self._probes]
        whole = len(known) == len(layer.parts)
        reader = self._family.reader({part.reader: part.layer.shape[0] for part in known} if whole else None)
        self._probes[layer.label] = self._unfitted(layer, reader)
        if isinstance(reader, ConvolutionalReader) and reader.parts:
            for which, part in enumerate(layer.parts):
                self._probes[_alone(part, layer.label)] = self._unfitted(layer, PartAlone(reader, (which,)))

    def _begin_pooled(self, skip: Skip) -> bool:
        """Probes of a skip beside all that a deeper path could know, at the places of the level below: if it can be halved."""
        whole = self._probes.get(skip.merge)
        if whole is None or not isinstance(whole.reader, ConvolutionalReader) or len(whole.layer.parts) != 2:
            return False
        if any(side % 2 for side in whole.grid):
            return False
        channels = {
            label: min(MOST_POOLED, self._probes[label].layer.shape[0]) for label in (skip.upsampled, skip.source)
        }
        shares = folded_channels(len(whole.grid), channels[skip.upsampled], channels[skip.source])
        layer = Layer(_pooled_label(skip.merge), "", shape=(sum(shares), *(side // 2 for side in whole.grid)))
        parts: dict[Reader, int] = {self._family.reader(): share for share in shares}
        reader = self._family.reader(parts)
        assert isinstance(reader, ConvolutionalReader)
        for label, one in ((layer.label, reader), (_alone("deeper", layer.label), PartAlone(reader, (0, 1)))):
            self._probes[label] = self._unfitted(layer, one)
        return True

    def _unfitted(self, layer: Layer, reader: Reader) -> _Probes:
        outputs = math.prod(ratios(layer.shape[1:], self._train.masks.shape[1:])) * (self._classes - 1)
        width, device = reader.width(layer.shape[0]), device_of(self._model)
        return _Probes(layer, reader, [Moments(width, outputs, device) for _ in range(FOLDS)])

    def readings(self) -> dict[str, list[Reading]]:
        if self._share:
            self._pass("first", self._train, self._draw)
        self._pass("moments", self._train, self._take_moments)
        if self._share:
            for probes in self._probes.values():
                for moments in probes.folds:
                    moments.gather(all_reduce)
        for label, probes in list(self._probes.items()):
            self._fit(label, probes)
        self._pass("calibration", self._train, self._take_scores)
        if self._share:
            self._gather_scores()
        guess = self._guess()
        truths = {grid: self._truth(grid) for grid in dict.fromkeys(probes.grid for probes in self._probes.values())}
        for probes in self._probes.values():
            for name in SHARES:
                probes.calibrations[name] = Calibration.fitted(
                    torch.cat(probes.scores[name]), torch.cat(probes.labels[name])
                )
                probes.held_out[name] = HeldOut(truths[probes.grid], crossed=name == "whole")
            calibrated = [probes.calibrations[name].of(probes.fitted[name]) for name in SHARES]
            probes.fitted["calibrated"] = LinearProbe.beside(calibrated)
        self._pass("held out", self._held_out, self._judge)
        if self._share:
            for probes in self._probes.values():
                for judged in probes.held_out.values():
                    all_reduce(judged.own, *([] if judged.crossed is None else [judged.crossed]))
        found = {layer.label: [self._reading(layer.label, guess)] for layer in self._layers}
        for skip in self._skips:
            found[skip.merge] += self._at_merge(skip, guess)
        return found

    def _pass(self, name: str, data: Segmented, take: Callable[[Tensor, str, Tensor], None]) -> None:
        """Show the activation of every layer, merges too, of one batch after the other to `take`."""
        if not self._probes:
            return
        merging, parts = _Merging(self._layers), {layer.label: layer.parts for layer in self._layers}
        self._shared = {}

        def receive(rows: Tensor, layer: Layer, activation: Tensor) -> None:
            for label, whole in merging.add(layer.label, activation):
                for known in (label, *(_alone(part, label) for part in parts[label])):
                    if known in self._probes:
                        take(rows, known, whole)
                if label in self._pooled:
                    pooled = self._beside_pooled(whole, label)
                    for known in (self._pooled[label], _alone("deeper", self._pooled[label])):
                        if known in self._probes:
                            take(rows, known, pooled)

        def told(_done: int) -> None:
            self._done += 1
            self._shared, self._pixels = {}, {}
            if self._on_batch is not None:
                self._on_batch(self._done, sum(map(len, self._batches.values())))

        visit(
            self._model,
            data.images,
            self._captured,
            receive,
            batches=self._batches[name],
            prepare=data.prepare,
            on_batch=told,
        )

    def _beside_pooled(self, merged: Tensor, merge: str) -> Tensor:
        """Of a merge: the upsampled path, the skip pooled, and the skip, all at the places of the level below."""
        skip = next(skip for skip in self._skips if skip.merge == merge)
        layers = {layer.label: layer for layer in self._layers}
        parts = layers[merge].parts
        channels = [layers[part].shape[0] for part in parts]
        of = dict(zip(parts, merged.split(channels, dim=1), strict=True))
        upsampled, source = (self._strongest(merge, label, of[label]) for label in (skip.upsampled, skip.source))
        return torch.cat((folded(upsampled), halved(source), folded(source)), dim=1)

    def _strongest(self, merge: str, label: str, stream: Tensor) -> Tensor:
        """Of a wide stream its strongest directions, each channel in its own spread, over the first images seen."""
        if stream.shape[1] <= MOST_POOLED:
            return stream
        features = features_of(stream).float()
        if (merge, label) not in self._directions:
            spread, mean = torch.std_mean(features, dim=0, correction=0)
            scale = torch.where(spread > ROUNDING * mean.abs(), 1 / spread, 0.0)
            centred = ((features - mean) * scale).double()
            vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -MOST_POOLED:]
            self._directions[merge, label] = scale[:, None] * vectors.float()
        strongest = features @ self._directions[merge, label]
        return strongest.reshape(len(stream), *stream.shape[2:], -1).movedim(-1, 1)

    def _draw(self, _rows: Tensor, label: str, activation: Tensor) -> None:
        self._probes[label].reader.features(activation)

    def _gather_scores(self) -> None:
        """The scores of all processes, in their order."""
        own = {label: (probes.scores, probes.labels) for label, probes in self._probes.items()}
        everyone = all_gather(own)
        for label, probes in self._probes.items():
            names = dict.fromkeys(name for one in everyone for name in one[label][0])
            probes.scores = {name: [part for one in everyone for part in one[label][0].get(name, [])] for name in names}
            probes.labels = {name: [part for one in everyone for part in one[label][1].get(name, [])] for name in names}

    def _take_moments(self, rows: Tensor, label: str, activation: Tensor) -> None:
        probes = self._probes[label]
        targets, kept = self._targets(rows, probes.grid, activation.device)
        _check_finite(label, activation)
        probes.folds[int(self._fold_of[rows[0]])].add(probes.reader.features(activation, kept), targets)

    def _targets(self, rows: Tensor, grid: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """What is to be told at the places that the batch's layers of this grid are fitted on, and which these are."""
        if grid not in self._shared:
            blocks = blocks_of(self._train.masks[rows], grid)
            some = self._some(grid)
            if some is not None:
                some = (math.prod(grid) * torch.arange(len(rows))[:, None] + some).reshape(-1)
                blocks = blocks[some]
            targets, kept = _targets(blocks, self._classes, self._train.ignored)
            if kept is not None:
                some = torch.arange(len(blocks))[kept] if some is None else some[kept]
            self._shared[grid] = targets.to(device), None if some is None else some.to(device)
        return self._shared[grid]

    def _some(self, grid: tuple[int, ...]) -> Tensor | None:
        """Some places of an image, if there are too many: the same for all layers of a grid."""
        places = math.prod(grid)
        if places <= PLACES_AN_IMAGE or self._sparse:
            return None
        if grid not in self._some_places:
            chosen = torch.randperm(places, generator=torch.Generator().manual_seed(self._seed))[:PLACES_AN_IMAGE]
            self._some_places[grid] = chosen.sort().values
        return self._some_places[grid]

    def _fit(self, label: str, probes: _Probes) -> None:
        whole = Moments.joined(probes.folds)
        spread = (whole.scatter.diagonal() / whole.count).clamp(min=0).sqrt()
        if not bool((spread > ROUNDING * whole.features_mean.abs()).any()):
            self._reasons[label] = DEAD_LAYER
            del self._probes[label]
            return
        strength, without = cross_validated(probes.folds)
        for name, folds in SHARES.items():
            probes.fitted[name] = ridge(Moments.joined([probes.folds[fold] for fold in folds]), strength)
        probes.fitted |= {f"without {fold}": fitted for fold, fitted in enumerate(without)}

    def _take_scores(self, rows: Tensor, label: str, activation: Tensor) -> None:
        """Scores at some pixels of training images, by probes that were not fitted on them; of the whole fit, by it too."""
        probes, fold = self._probes[label], int(self._fold_of[rows[0]])
        wanted = {name: name for name, folds in SHARES.items() if fold not in folds}
        wanted |= {"whole": f"without {fold}", "seen": "whole"}
        place, output, labels, valid = self._some_pixels(rows, probes.grid, activation.device)
        all_places = math.prod(probes.grid) <= CALIBRATION_PIXELS
        fitted = LinearProbe.beside([probes.fitted[name] for name in wanted.values()])
        scores = fitted.scores(probes.reader.features(activation, None if all_places else place))
        scores = scores.reshape(len(scores), len(wanted), -1, self._classes - 1)
        at = place if all_places else torch.arange(len(place), device=place.device)
        for number, name in enumerate(wanted):
            probes.scores.setdefault(name, []).append(scores[at, number, output][valid].cpu())
            probes.labels.setdefault(name, []).append(labels)

    def _some_pixels(
        self, rows: Tensor, grid: tuple[int, ...], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of some pixels of a batch: the place below each, its number among those of the place, whether it counts; and the
        labels of those that do. The same pixels for all layers, however many images a batch has."""
        if grid not in self._pixels:
            sides = self._train.masks.shape[1:]
            chosen, counted = zip(*(self._pixels_of(int(row)) for row in rows), strict=True)
            pixels, valid = torch.stack(chosen), torch.stack(counted).reshape(-1)
            labels = self._train.masks[rows].reshape(len(rows), -1).gather(1, pixels).long().reshape(-1)
            above = math.prod(sides) // math.prod(grid)
            order = _places(sides, grid)[pixels]
            place = (order // above + math.prod(grid) * torch.arange(len(rows))[:, None]).reshape(-1)
            output = (order % above).reshape(-1)
            self._pixels[grid] = place.to(device), output.to(device), labels[valid], valid.to(device)
        return self._pixels[grid]

    def _pixels_of(self, row: int) -> tuple[Tensor, Tensor]:
        """Some pixels of a training image, and which of them count: its share of labelled ones, and at least one."""
        generator = torch.Generator().manual_seed(self._seed + row)
        known = _labelled(self._train.masks[row], self._train.ignored).flatten()
        if bool(known.all()):
            pixels = torch.randint(len(known), (CALIBRATION_PIXELS,), generator=generator)
            return pixels, torch.ones_like(pixels, dtype=torch.bool)
        pixels = torch.multinomial(known.float(), CALIBRATION_PIXELS, replacement=True, generator=generator)
        return pixels, torch.arange(CALIBRATION_PIXELS) < math.ceil(CALIBRATION_PIXELS * known.float().mean().item())

    def _judge(self, rows: Tensor, label: str, activation: Tensor) -> None:
        _check_finite(label, activation)
        probes = self._probes[label]
        features = probes.reader.features(activation)
        logits = probes.fitted["calibrated"].scores(features).reshape(len(rows), -1, len(SHARES), probes.outputs)
        for number, name in enumerate(SHARES):
            of_share = logits[:, :, number].reshape(len(rows), -1, self._classes - 1)
            probes.held_out[name].add(int(rows[0]), of_share)

    def _class_frequencies(self) -> Tensor:
        counts = torch.stack([(self._train.masks == label).sum() for label in range(self._classes)]).double()
        return counts / counts.sum()

    def _guess(self) -> Tensor:
        """Cross-entropy in nats of each held-out image under the frequencies of the training masks."""
        total = int(_labelled(self._train.masks, self._train.ignored).sum())
        smoothed = (self._frequencies * total + 1) / (total + self._classes)
        return guessed(self._held_out.masks.reshape(len(self._held_out.masks), -1), smoothed)

    def _truth(self, grid: tuple[int, ...]) -> Truth:
        masks = self._held_out.masks
        blocks = blocks_of(masks, grid).reshape(len(masks), -1)
        return Truth(blocks.to(device_of(self._model)), self._classes, self._held_out.ignored)

    def _reading(self, label: str, guess: Tensor) -> Reading:
        if label in self._reasons:
            return Reading(
                Quantity.USABLE, self._estimator, 0.0, math.nan, labels="pixels", reason=self._reasons[label]
            )
        null = shuffled_masks(guess, self._probes[label].held_out["whole"], seed=self._seed)
        reading = null.beside(self._gain(Quantity.USABLE, {label: -1}, guess))
        return _judged(replace(reading, train=self._on_training_pixels(label, "seen")))

    def _at_merge(self, skip: Skip, guess: Tensor) -> Iterator[Reading]:
        """What the skip adds to the upsampled path, what that adds to the skip, and what both hold, paired over images."""
        if skip.merge in self._pooled:
            label = self._pooled[skip.merge]
            yield self._at_pooled(label, _alone("deeper", label), guess)
        u, s = (
            alone if (alone := _alone(part, skip.merge)) in self._probes else part
            for part in (skip.upsampled, skip.source)
        )
        reason = next((self._reasons[label] for label in (u, s, skip.merge) if label in self._reasons), "")
        losses: dict[Quantity, dict[str, int]] = {
            Quantity.USABLE_SKIP_GIVEN_UPSAMPLED: {u: 1, skip.merge: -1},
            Quantity.USABLE_UPSAMPLED_GIVEN_SKIP: {s: 1, skip.merge: -1},
            Quantity.USABLE_SHARED: {u: -1, s: -1, skip.merge: 1},
        }
        for quantity, signs in losses.items():
            if reason:
                yield Reading(quantity, self._estimator, 0.0, math.nan, labels="pixels", reason=reason)
                continue
            reading = self._gain(quantity, signs, guess)
            if sum(signs.values()) == 0:  # what both hold may be of either sign, though neither is of chance
                reading = turned(reading.per_image, seed=self._seed).beside(reading)
            yield _judged(reading)

    def _at_pooled(self, label: str, deeper: str, guess: Tensor) -> Reading:
        """What the skip adds to the upsampled path and to itself pooled."""
        quantity = Quantity.USABLE_SKIP_GIVEN_POOLED
        if reason := next((self._reasons[one] for one in (deeper, label) if one in self._reasons), ""):
            return Reading(quantity, self._estimator, 0.0, math.nan, labels="pixels", reason=reason)
        return _judged(self._gain(quantity, {deeper: 1, label: -1}, guess))

    def _gain(self, quantity: Quantity, signs: Mapping[str, int], guess: Tensor) -> Reading:
        """A sum of cross-entropies, and of the best guess's if it has one more of those taken off, in nats a pixel.

        The interval reaches from where the value may be to where it would be of ever more training images, by either account;
        the bracket twice as far beyond, and is known where the interval would not hold.
        """
        pixels = next(self._probes[label].held_out["whole"].truth for label in signs).pixels.cpu()
        judged = pixels > 0
        values = {}
        for name in SHARES:
            gain = -sum(signs.values()) * guess
            for label, sign in signs.items():
                gain = gain + sign * self._probes[label].held_out[name].own.cpu()
            values[name] = ratio_values(gain[judged], pixels[judged])
        interval = student(values["whole"])
        curve = tuple(float(values[name].mean()) for name in SHARES)
        limit = extrapolated(curve)
        gaps = (0.0, limit - interval.value, -sum(sign * self._shortfall(label) for label, sign in signs.items()))
        judged_enough = len(values["whole"]) >= FEWEST_JUDGED and not self._unseen
        return Reading(
            quantity,
            self._estimator,
            0.0,
            interval.value,
            lower=interval.low + UNSURE * min(gaps) if judged_enough else math.nan,
            upper=interval.high + UNSURE * max(gaps) if judged_enough else math.nan,
            labels="pixels",
            ceiling=guess.sum().item() / pixels.sum().item(),
            low=interval.low + min(gaps),
            high=interval.high + max(gaps),
            curve=curve,
            extrapolated=limit,
            per_image=tuple(values["whole"].tolist()),
            reason=self._out_of_domain(len(values["whole"]), interval.high - interval.value, max(gaps, key=abs)),
        )

    def _shortfall(self, label: str) -> float:
        """What a probe of ever more training images would gain, in nats a pixel, from those that it was fitted on.

        A fit of n images gains about as much on them as it loses on others, c/n each (Akaike 1974). One that was fitted on all
        folds but one loses more, so the two differ on the same pixels by c/n (1 + folds / (folds − 1)).
        """
        optimism = self._on_training_pixels(label, "seen") - self._on_training_pixels(label, "whole")
        return optimism / (1 + FOLDS / (FOLDS - 1))

    def _out_of_domain(self, judged: int, half: float, gap: float) -> str:
        """Why an interval would not hold; empty if it does."""
        if self._unseen:
            return f"out of domain: held-out masks have class {', '.join(self._unseen)}, which no training mask has"
        if judged < FEWEST_JUDGED:
            return f"out of domain: {judged} held-out images with labels are too few for an interval"
        if not negligible(gap, half, SMALLEST_GAP):
            return too_few(self._fitted_on, "ever more of them it goes", gap, "training images")
        return ""

    def _on_training_pixels(self, label: str, by: Literal["seen", "whole"]) -> float:
        """The gain in nats a pixel on some pixels of training images, by a probe that has seen them or by others."""
        probes = self._probes[label]
        if by not in probes.on_training:
            scores, labels = torch.cat(probes.scores[by]), torch.cat(probes.labels[by])
            logits = functional.pad(probes.calibrations["whole"].logits(scores), (0, 1))
            without = functional.nll_loss(self._frequencies.log().expand(len(labels), -1).float(), labels)
            probes.on_training[by] = float(without - functional.cross_entropy(logits, labels))
        return probes.on_training[by]


def _judged(reading: Reading) -> Reading:
    """The reading without its interval, if there is a reason why that would not hold."""
    return replace(reading, low=math.nan, high=math.nan, per_image=()) if reading.reason else reading


def _alone(part: str, merge: str) -> str:
    """What the probe of a merge that is shown one part alone goes by."""
    return f"{part} alone in {merge}"


def _pooled_label(merge: str) -> str:
    """What the probe of a merge at the places of the level below goes by."""
    return f"{merge} below"


class _Merging:
    """Activations of layers come in, and go out again with those of the merges that they complete, batch by batch."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._merges = {layer.label: layer.parts for layer in layers if layer.parts}
        self._awaited = {part for parts in self._merges.values() for part in parts}
        self._waiting: dict[str, Tensor] = {}
        self._done: set[str] = set()

    def add(self, label: str, activation: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield label, activation
        if label not in self._awaited:
            return
        self._waiting[label] = activation.clone()  # what comes next may overwrite it
        for merge, parts in self._merges.items():
            if merge not in self._done and label in parts and self._waiting.keys() >= set(parts):
                self._done.add(merge)
                yield from self.add(merge, torch.cat([self._waiting[part] for part in parts], dim=1))
        if len(self._done) == len(self._merges):
            self._done, self._waiting = set(), {}


def _labelled(masks: Tensor, ignored: int | None) -> Tensor:
    """The pixels that are not ignored."""
    return torch.ones_like(masks, dtype=torch.bool) if ignored is None else masks != ignored


def _check_finite(label: str, activation: Tensor) -> None:
    if not activation.sum().isfinite():
        raise MeasurementError(
            f"layer {label}: activations are not finite; the network has diverged, use an earlier checkpoint"
        )


def _check(part: str, data: Segmented, classes: int) -> None:
    if len(data.images) != len(data.masks):
        raise InvalidArgument(f"{len(data.masks)} {part} masks for {len(data.images)} images: expected one an image")
    if data.ignored is not None and 0 <= data.ignored < classes:
        raise InvalidArgument(f"ignored pixels have label {data.ignored}, which is that of a class: 0 to {classes - 1}")
    known = data.masks if data.ignored is None else data.masks[data.masks != data.ignored]
    if not len(known):
        raise InvalidArgument(f"the {part} masks have no pixel that is not ignored")
    if int(known.min()) < 0 or int(known.max()) >= classes:
        raise InvalidArgument(
            f"the {part} masks have labels {int(known.min())} to {int(known.max())}: expected 0 to {classes - 1}"
        )


def _targets(blocks: Tensor, classes: int, ignored: int | None) -> tuple[Tensor, Tensor | None]:
    """Indicators of every class but the last for each pixel of a block, [m, r·r·(classes − 1)], and the places to keep.

    An ignored pixel counts as the mean of the others in its block; a block of nothing else is left out.
    """
    hot = torch.stack([blocks == label for label in range(classes - 1)], dim=2).float()
    if ignored is None or not bool((blocks == ignored).any()):
        return hot.flatten(1), None
    known = (blocks != ignored)[..., None].float()
    kept = known.sum(dim=1)[:, 0] > 0
    hot, known = hot[kept], known[kept]
    mean = (hot * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True)
    return torch.where(known > 0, hot, mean).flatten(1), kept


def _places(sides: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Of every pixel, row by row, its place in the order of the blocks."""
    order = blocks_of(torch.arange(math.prod(sides)).reshape(1, *sides), grid).reshape(-1)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
