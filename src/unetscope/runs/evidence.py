"""Train smaller networks on from a run's weights, beside the whole one, to show which parts are redundant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unetscope.analysis import DICE_MARGIN, check_margin, interval_over_images
from unetscope.base import InvalidArgument, NoProgress, Progress
from unetscope.networks import Structure, ablated
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import BuiltNetwork, built_network, designed
from unetscope.runs.carrying import Carried, carried, inspected, load_last, names_in, smaller, train_on
from unetscope.runs.kept_evidence import keep_evidence
from unetscope.runs.smaller_files import FOLDER
from unetscope.table import (
    EVIDENCE_LEVEL,
    LEVEL,
    Evidence,
    Interval,
    Part,
    TrainedOn,
    Variant,
    bisected,
    design_name,
)
from unetscope.training import validation_scores

Dice = NDArray[np.float64]  # of each validation image


def gather_evidence(
    run: str | Path,
    effort: float,
    *,
    margin: float = DICE_MARGIN,
    code: str | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Find the smallest network that loses less than the margin when it is trained on, and keep what was found with the run.

    First all parts are put into an order: one after the other, the level or skip goes whose silencing, together with those that
    went before, costs the least Dice. Of the networks that this leaves, few are trained on from the run's weights, each for
    as many epochs as the whole one; which comes next follows by bisection. A search that was stopped goes on.

    effort: the epochs of all of them together, as a share of those of the run. code: the network's, of a run that was begun
    elsewhere, as consent to run it.

    Raises: InvalidArgument for an effort that is no share, or less than one epoch for each network; RunFolderError if the run
    has no checkpoint, or its data have changed.
    """
    check_margin(margin)
    if not 0 < effort <= 1:
        raise InvalidArgument(f"effort must be a share of the run's epochs, more than 0 and at most 1, got {effort}")
    progress = progress or NoProgress()
    of_run = carried(AnalysedRun.open(run), "model1", or_whole=True, code=code, progress=progress)
    search = _Search(of_run, progress)
    designs = search.designs()
    rounds = math.ceil(math.log2(len(designs) + 1))
    all_epochs = of_run.config.training.epochs
    epochs = int(effort * all_epochs / (rounds + 1) + 1e-9)
    if epochs < 1:
        least = math.ceil(100 * (rounds + 1) / all_epochs) / 100
        raise InvalidArgument(
            f"effort {effort:g} of {all_epochs} epochs is less than one for each of {rounds + 1} networks: say "
            + (f"{least:g} or more" if least <= 1 else "train the run for longer")
        )
    progress.stage("training on", (rounds + 1) * epochs)
    with of_run.run.folder.locked():
        whole = search.trained_on(of_run.design, epochs)
        tried: list[TrainedOn | None] = [None] * len(designs)
        while (place := bisected([None if each is None else each.shows(margin) for each in tried])) is not None:
            tried[place] = search.compared(designs[place], whole, epochs, 1 - (1 - EVIDENCE_LEVEL) / rounds)
        evidence = Evidence(
            of_run.epoch, epochs, float(np.nanmean(whole)), tuple(each for each in tried if each is not None),
            len(designs), of_run.design.depth, of_run.design.without,
        )  # fmt: skip
        keep_evidence(of_run.run.folder, evidence)
    progress.advance((rounds + 1) * epochs)
    return evidence


class _Search:
    """The designs of a run, silenced and trained on."""

    def __init__(self, of_run: Carried, progress: Progress) -> None:
        self._of_run, self._progress, self._done = of_run, progress, 0
        image = torch.rand(1, of_run.train.channels, *of_run.train.image_size)
        self._structure = of_run.whole.structure or inspected(of_run.whole.model, image)
        self._names = names_of_parts(of_run, self._structure)
        self._whole_dice = self._dice(of_run.whole)
        self._silenced: dict[Variant, float] = {}

    def designs(self) -> list[Variant]:
        """Smaller and smaller networks, each of which lacks what the one before lacks and one part more."""
        design, designs = self._of_run.design, []
        while candidates := list(self._smaller(design)):
            design = min(candidates, key=self._loss_silenced)
            designs.append(design)
        return designs

    def _smaller(self, design: Variant) -> Iterator[Variant]:
        """A design without one part more."""
        of_depth, before = self._of_run.design.depth, set(self._of_run.design.without)

        def variant(depth: int, without: Sequence[Part]) -> Variant:
            kept = tuple(sorted(skip for skip in without if skip.level <= depth))
            return Variant(design_name(depth, set(kept) - before, of_depth=of_depth), depth, kept)

        if design.depth > 1:
            yield variant(design.depth - 1, design.without)
        for skip in self._of_run.whole.skips:
            if skip.part.level <= design.depth and skip.part not in design.without:
                yield variant(design.depth, (*design.without, skip.part))

    def _loss_silenced(self, design: Variant) -> float:
        if design not in self._silenced:
            parts = [name for part, name in self._names.items() if lacks(design, part)]
            with ablated(self._of_run.whole.model, self._structure, parts):
                self._silenced[design] = float(np.nanmean(self._whole_dice - self._dice(self._of_run.whole)))
        return self._silenced[design]

    def compared(self, design: Variant, whole: Dice, epochs: int, level: float) -> TrainedOn:
        """A design trained on, beside the whole network trained on as long. level: of the interval."""
        dice = self.trained_on(design, epochs)
        groups = self._of_run.held_out.group_numbers
        loss = interval_over_images((whole - dice)[None], () if groups is None else groups.tolist(), level)
        mean = float(np.nanmean(whole - dice))
        return TrainedOn(
            design, float(np.nanmean(dice)), loss or Interval(mean, math.nan, math.nan), self._silenced[design]
        )

    def trained_on(self, design: Variant, epochs: int) -> Dice:
        """Dice of a design that is trained on from the run's weights, in the folder where `slim` trains it on."""
        of_run = self._of_run
        folder = of_run.run.folder.path / FOLDER / f"{design.name}-fine-tuned" / f"training-{of_run.epoch}"
        config = designed(of_run.config, design)
        if design == of_run.design:
            train = of_run.train
            network = built_network(config, train.channels, train.classes, train.ignore)
            load_last(of_run.run.folder, network.model)
        else:
            network, _ = smaller(of_run.whole, config, of_run.train)
        train_on(of_run, network, folder, epochs, partial(self._advance, self._done, design))
        self._done += epochs
        return self._dice(network)

    def _advance(self, before: int, design: Variant, epoch: int, dice: float) -> None:
        self._progress.advance(before + epoch, f"{design.name}, validation Dice {dice:.3f}")

    def _dice(self, network: BuiltNetwork) -> Dice:
        return validation_scores(network.model, self._of_run.held_out, network.reading).images.double().numpy()


def lacks(design: Variant, part: Part) -> bool:
    """Whether a part goes in a design: a skip that it leaves out, or the first level below its depth."""
    return part in design.without if part.is_skip else part.level == design.depth + 1


def names_of_parts(of_run: Carried, structure: Structure) -> dict[Part, str]:
    """The names of the run's skips and levels in a structure of its whole network, by the part."""
    skips = names_in(structure, [skip.part for skip in of_run.whole.skips])
    levels = {Part(LEVEL, part.level): f"level{Part.named(name).level}" for part, name in skips.items()}
    return skips | levels
