"""Train smaller networks on from a run's weights, beside the whole one, to show which parts are redundant."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetscope.analysis import DICE_MARGIN, interval_over_images
from unetscope.base import InvalidArgument, NoProgress, Progress
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import BuiltNetwork, built_network, designed
from unetscope.runs.carrying import Carried, carried, load_last, smaller, train_on
from unetscope.runs.kept_evidence import keep_evidence
from unetscope.runs.kept_silenced import keep_silenced
from unetscope.runs.silencing import Silencing
from unetscope.runs.smaller_files import FOLDER
from unetscope.table import (
    EVIDENCE_LEVEL,
    Evidence,
    Interval,
    Silenced,
    TrainedOn,
    Variant,
    bisected,
    check_margin,
    epochs_trained_on,
    has_all_of,
)
from unetscope.training import Checkpoints, validation_scores

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
    as many epochs as the whole one (`table.epochs_trained_on`); which comes next follows by bisection. What is left of the
    effort goes to networks that lack one part which is not shown to be redundant. A search that was stopped goes on.

    effort: the epochs of all of them together, as a share of those of the run. code: the network's, of a run that was begun
    elsewhere, as consent to run it.

    Raises: InvalidArgument for an effort that is no share, or less than that of two networks; RunFolderError if the run has no
    checkpoint, or its data have changed.
    """
    check_margin(margin)
    if not 0 < effort <= 1:
        raise InvalidArgument(f"effort must be a share of the run's epochs, more than 0 and at most 1, got {effort}")
    progress = progress or NoProgress()
    of_run = carried(AnalysedRun.open(run), "model1", or_whole=True, code=code, progress=progress)
    all_epochs = of_run.config.training.epochs
    epochs = epochs_trained_on(all_epochs)
    networks = int(effort * all_epochs / epochs + 1e-9)
    if networks < 2:
        least = math.ceil(200 * epochs / all_epochs) / 100
        raise InvalidArgument(
            f"effort {effort:g} of {all_epochs} epochs is less than {epochs} for the whole network and for a smaller one: "
            + (f"say {least:g} or more" if least <= 1 else "train the run for longer")
        )
    with of_run.run.folder.locked():
        evidence = _Search(of_run, epochs, networks - 1, progress).evidence(margin)
        keep_evidence(of_run.run.folder, evidence)
    return evidence


class _Search:
    """The designs of a run, silenced and trained on. epochs: of each. most: how many designs may be trained on."""

    def __init__(self, of_run: Carried, epochs: int, most: int, progress: Progress) -> None:
        self._of_run, self._epochs, self._most, self._progress = of_run, epochs, most, progress
        self._silencing = Silencing(of_run.whole, of_run.design, of_run.held_out)
        if not self._silencing.designs:
            raise InvalidArgument(f"{of_run.run.path}: the network has no skip and no second level to leave out")
        self._whole_dice = self._silencing.dice()
        self._silenced: dict[Variant, float] = {}
        self._done = 0

    def evidence(self, margin: float) -> Evidence:
        """What smaller networks show, by bisection and then of single parts."""
        alone = sorted(self._silencing.designs, key=self._loss_silenced)
        designs = self.designs()
        keep_silenced(
            self._of_run.run.folder,
            [Silenced(self._of_run.epoch, each, loss) for each, loss in self._silenced.items() if math.isfinite(loss)],
        )
        rounds = min(self._most, math.ceil(math.log2(len(designs) + 1)))
        trainings = min(self._most, rounds + len(alone))
        self._progress.stage("training on", (trainings + 1) * self._epochs)
        whole = self.trained_on(self._of_run.design)
        level = 1 - (1 - EVIDENCE_LEVEL) / trainings
        tried: list[TrainedOn | None] = [None] * len(designs)
        while (place := bisected([None if each is None else each.shows(margin) for each in tried])) is not None and sum(
            each is not None for each in tried
        ) < rounds:
            tried[place] = self.compared(designs[place], whole, level)
        evidence = Evidence(
            self._of_run.epoch, self._epochs, float(np.nanmean(whole)),
            tuple(each for each in tried if each is not None), len(designs), self._of_run.design.depth,
            self._of_run.design.without,
        )  # fmt: skip
        shown = [each.design for each in evidence.tried if each.shows(margin)]
        left = [
            design
            for design in alone
            if not any(has_all_of(design, each, evidence.depth, evidence.without) for each in shown)
            and not any(each.design.is_same_network(design) for each in evidence.tried)
        ]
        single = [self.compared(design, whole, level) for design in left[: self._most - len(evidence.tried)]]
        self._progress.advance((trainings + 1) * self._epochs)
        return replace(evidence, alone=tuple(single))

    def designs(self) -> list[Variant]:
        """Smaller and smaller networks, each of which lacks what the one before lacks and one part more."""
        design, designs = self._of_run.design, []
        while candidates := list(self._silencing.smaller(design)):
            design = min(candidates, key=self._loss_silenced)
            designs.append(design)
        return designs

    def _loss_silenced(self, design: Variant) -> float:
        if design not in self._silenced:
            self._silenced[design] = float(np.nanmean(self._whole_dice - self._silencing.dice(design)))
        return self._silenced[design]

    def compared(self, design: Variant, whole: Dice, level: float) -> TrainedOn:
        """A design trained on, beside the whole network trained on as long. level: of the interval."""
        dice = self.trained_on(design)
        groups, lost = self._of_run.held_out.group_numbers, whole - dice
        loss = interval_over_images(lost[None], () if groups is None else groups.tolist(), level)
        return TrainedOn(
            design, float(np.nanmean(dice)), loss or Interval(float(np.nanmean(lost)), math.nan, math.nan),
            self._silenced[design], float(np.nanmean(self._whole_dice - dice)), int(np.isfinite(lost).sum()),
        )  # fmt: skip

    def trained_on(self, design: Variant) -> Dice:
        """Dice of a design that is trained on from the run's weights, in the folder where `slim` trains it on."""
        of_run = self._of_run
        folder = of_run.run.folder.path / FOLDER / f"{design.name}-fine-tuned" / f"training-{of_run.epoch}"
        if max(Checkpoints(folder).epochs(), default=0) > self._epochs:  # `slim` has trained it on for longer
            folder = folder.with_name(f"{folder.name}-for-{self._epochs}")
        config = designed(of_run.config, design)
        if design == of_run.design:
            train = of_run.train
            network = built_network(config, train.channels, train.classes, train.ignore)
            load_last(of_run.run.folder, network.model)
        else:
            network, _ = smaller(of_run.whole, config, of_run.train)
        train_on(of_run, network, folder, self._epochs, partial(self._advance, self._done, design))
        self._done += self._epochs
        return self._dice(network)

    def _advance(self, before: int, design: Variant, epoch: int, dice: float) -> None:
        self._progress.advance(before + epoch, f"{design.name}, validation Dice {dice:.3f}")

    def _dice(self, network: BuiltNetwork) -> Dice:
        return validation_scores(network.model, self._of_run.held_out, network.reading).images.double().numpy()
