"""A run folder, read and judged once, for all that shows it: terminal, JSON, page, figures, trackers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unetscope.analysis import (
    DICE_MARGIN,
    MARGIN,
    Judgement,
    Training,
    Verification,
    error_of_run,
    guess_nats,
    guess_of_classes,
    judge,
    output_information,
)
from unetscope.base import InvalidArgument, RunFolderError
from unetscope.runs.folder import RunFolder
from unetscope.runs.kept_costs import KeptCosts, kept_costs
from unetscope.runs.kept_evidence import kept_evidence
from unetscope.runs.kept_silenced import kept_silenced
from unetscope.runs.own_loops import can_be_retrained, configuration_of
from unetscope.runs.planned import PlannedDepth, planned_depths
from unetscope.runs.retraining import Trial, existing_trials, trained_variants
from unetscope.runs.seed_plans import seed_plans
from unetscope.runs.tables import Picture
from unetscope.table import (
    REFERENCE,
    ClassMap,
    EpochRecord,
    Evidence,
    Flow,
    Savings,
    Variant,
    check_margin,
    parts_named,
)

UNLEARNT_DICE = 0.1  # of a network that does not segment yet
LEARNT_SHARE = 0.5  # of the best Dice of a run: from there on, what its network loses tells what a retrained one would


class AnalysedRun:
    """A run folder with its judgement; each part is read or computed at most once, at its first use.

    margin: the share of the network's information that counts as nothing, for the verdicts. dice_margin: the loss of Dice
    that counts as none where retrained variants are compared.
    Raises: InvalidArgument for a margin that is not between 0 and 1.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = RunFolder.create(Path(parent, "run"), {"configuration": {}, "facts": {}})
    ...     run = AnalysedRun(folder)
    ...     run.name, len(run.flow), run.judgement, run.verification
    ('run', 0, None, None)
    """

    def __init__(self, folder: RunFolder, *, margin: float = MARGIN, dice_margin: float = DICE_MARGIN) -> None:
        check_margin(margin)
        check_margin(dice_margin, "dice_margin")
        self.folder, self.margin, self.dice_margin = folder, margin, dice_margin
        self._pictures: dict[str, tuple[Picture, ...]] = {}
        self._trainings: dict[Path, Training] = {}

    @classmethod
    def open(cls, path: str | Path, *, margin: float = MARGIN, dice_margin: float = DICE_MARGIN) -> AnalysedRun:
        """The run of an existing folder. Raises: RunFolderError for a folder that is no run, InvalidArgument as the class."""
        return cls(RunFolder.open(path), margin=margin, dice_margin=dice_margin)

    @classmethod
    def of(cls, run: RunFolder | AnalysedRun) -> AnalysedRun:
        """The run of a folder, or one that is analysed already."""
        return run if isinstance(run, AnalysedRun) else cls(run)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.path.resolve().name

    @cached_property
    def flow(self) -> Flow:
        """The table of estimates."""
        return self.folder.flow()

    @cached_property
    def epochs(self) -> tuple[EpochRecord, ...]:
        """Dice and loss of every epoch, ascending."""
        return self.folder.epochs()

    @property
    def has_learnt(self) -> bool:
        """Whether the network segments at all after the last epoch."""
        last = self.epochs[-1] if self.epochs else None
        return last is not None and not last.validation_dice < UNLEARNT_DICE and self._tells_images_apart(last.epoch)

    def _tells_images_apart(self, epoch: int) -> bool:
        """Whether the network is better than a guess that looks at no image, as far as its loss or its output tells.

        Where most pixels are of one class, or most masks are empty, such a guess has a large Dice, and nothing is lost without
        any part of a network which guesses.
        """
        if math.isnan(self._training.guess):
            return not self._outputs[epoch][1]
        started_at = self._training.started_at
        return started_at is not None and started_at <= epoch and self._training.state(epoch) == "started"

    @cached_property
    def _outputs(self) -> dict[int, tuple[float, str]]:
        return output_information(self.flow, [record.epoch for record in self.epochs])

    @cached_property
    def _training(self) -> Training:
        guess = _guess_of(self.folder) if self.folder.trained_here else math.nan
        return Training(REFERENCE, 0, tuple(self.epochs), guess, {})

    @property
    def epochs_left(self) -> int:
        """How many epochs of its configuration are not trained yet; 0 of a training in a loop of the user's."""
        planned: int = self.configuration["training"]["epochs"] if self.trained_here else 0
        return max(0, planned - max((record.epoch for record in self.epochs), default=0))

    @cached_property
    def learnt_epochs(self) -> frozenset[int]:
        """The epochs after which the network segments, and at least half as well as it ever did.

        At others it has learnt nothing, or little, and loses little without any of its parts.
        """
        best = max((record.validation_dice for record in self.epochs), default=0.0)
        least = max(UNLEARNT_DICE, LEARNT_SHARE * best)
        segments = (record.epoch for record in self.epochs if record.validation_dice >= least)
        return frozenset(epoch for epoch in segments if self._tells_images_apart(epoch))

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The resolved configuration."""
        return self.folder.configuration

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Versions, device, data fingerprints and sizes."""
        return self.folder.facts

    @cached_property
    def planned_depths(self) -> tuple[PlannedDepth, ...]:
        """The depth that published rules plan for its images."""
        return planned_depths(self.facts)

    @cached_property
    def class_map(self) -> ClassMap | None:
        """How the masks in its pictures are read: their numbers are classes; None for 0 and 255, as of binary masks."""
        for about in self.facts.get("data", {}).values():
            if about.get("classes", 2) > 2 or "ignored" in about:
                return ClassMap(about.get("classes", 2), about.get("ignored"))
        return None

    @cached_property
    def trained_here(self) -> bool:
        """Whether `unetscope run` trained it, as of `RunFolder`."""
        return self.folder.trained_here

    def pictures(self, kind: str) -> tuple[Picture, ...]:
        """The pictures of one kind, by epoch and place."""
        if kind not in self._pictures:
            self._pictures[kind] = self.folder.pictures(kind)
        return self._pictures[kind]

    @property
    def costs(self) -> KeptCosts:
        """What its designs cost, as far as that was measured; read anew, as it is measured after a run has been analysed."""
        return kept_costs(self.folder)

    @property
    def evidence(self) -> Evidence | None:
        """What smaller networks showed, read anew, as it may be gathered after a run has been analysed; None if none was."""
        return kept_evidence(self.folder)

    @property
    def designs(self) -> tuple[Variant, ...]:
        """The whole network, what was retrained or trained on, and what is proposed; none if variants cannot be made."""
        if not can_be_retrained(self.folder):
            return ()
        network = configuration_of(self.folder)["network"]
        designs = [Variant(REFERENCE, network["depth"], parts_named(network["without"]))]
        proposed = None if self.judgement is None else self.judgement.design()
        evidence = self.evidence
        tried = [] if evidence is None else [each.design for each in evidence.trained_on]
        candidates = [
            *(trial.variant for trial in trained_variants(self.folder)),
            *([proposed] if proposed else []),
            *tried,
        ]
        for variant in candidates:
            if not any(variant.is_same_network(design) for design in designs):
                designs.append(variant)
        return tuple(designs)

    @property
    def design_costs(self) -> tuple[tuple[Variant, Savings], ...]:
        """The designs whose costs are known, with what they are beside those of the whole network."""
        costs = self.costs
        return tuple((design, saved) for design in self.designs if (saved := costs.of(design)) is not None)

    @cached_property
    def judgement(self) -> Judgement | None:
        """The verdicts, None if the run was not measured enough to judge."""
        try:
            return self._judged
        except InvalidArgument:
            return None

    def judged(self) -> Judgement:
        """The verdicts. Raises: InvalidArgument if the run was not measured enough to judge."""
        return self._judged

    @cached_property
    def _judged(self) -> Judgement:
        evidence = self.evidence
        # Of a loop of its own whose network has not been named, the measured layers and skips are all that is known.
        network = configuration_of(self.folder)["network"] if can_be_retrained(self.folder) else None
        silenced = [row for row in kept_silenced(self.folder) if row.epoch in self.learnt_epochs]
        groups = tuple(self.facts.get("data", {}).get("validation", {}).get("groups", ()))
        judged = {row.epoch for row in silenced} | ({evidence.epoch} if evidence is not None else set())
        return judge(
            self.flow,
            margin=self.margin,
            depth=None if network is None else network["depth"],
            without=None if network is None else parts_named(network["without"]),
            silenced=silenced,
            more_error={epoch: error_of_run(self.epochs, epoch, groups) for epoch in judged},
            evidence=evidence if evidence is not None and evidence.epoch in self.learnt_epochs else None,
            dice_margin=self.dice_margin,
        )

    @cached_property
    def verification(self) -> Verification | None:
        """The verdicts beside all retrained variants, None unless the reference and a variant have trained an epoch."""
        begun = [trial for trial in trained_variants(self.folder) if self._trained(trial)]
        names = {trial.variant.name for trial in begun}
        return self.verification_of(begun) if REFERENCE in names and len(names) > 1 else None

    def verification_of(self, planned: Sequence[Trial]) -> Verification:
        """The verdicts beside all trainings of some variants, finished or not.

        Seeds that were trained before count, whether they are planned again or not, and trainings of further variants tell how
        much scores vary: so the numbers are those of the page.

        Raises: RunFolderError if none of the planned has begun.
        """
        begun = [trial for trial in planned if RunFolder.exists(trial.path)]
        variant_of = {trial.path.parent: trial.variant for trial in begun}
        paths = {trial.path for trial in begun}
        further = [trial for trial in existing_trials(self.folder) if trial.path not in paths and self._trained(trial)]
        begun += [
            Trial(variant_of[trial.path.parent], trial.seed, trial.path)
            for trial in further
            if trial.path.parent in variant_of
        ]
        trainings = tuple(map(self.training, begun))
        others = tuple(self.training(trial) for trial in further if trial.path.parent not in variant_of)
        images = {len(record.dice_per_image) for each in (*trainings, *others) for record in each.records}
        if not self.trained_here and len(images) > 1:  # a loop that scores other images with another seed
            trainings, others = (tuple(each.scored_as_a_whole() for each in of) for of in (trainings, others))
        last_epochs = [training.records[-1].epoch for training in trainings if training.records]
        reached, last = min(last_epochs, default=0), max(last_epochs, default=0)
        marked = () if self.judgement is None else self.judgement.epochs
        budgets = tuple(sorted({epoch for epoch in marked if epoch <= last} | {reached, last} - {0}))
        if not budgets:
            raise RunFolderError(f"{self.path} has no retrained variant: unetscope verify {self.path}")
        variants = tuple(dict.fromkeys(trial.variant for trial in begun))
        plans = seed_plans(self.folder, begun)
        return Verification(variants, trainings, self.judgement, budgets, self.dice_margin, plans, others)

    def _trained(self, trial: Trial) -> bool:
        """Whether a trial has trained an epoch."""
        records = self.training(trial).records
        return bool(records) and records[-1].epoch > 0

    def training(self, trial: Trial) -> Training:
        """The training in the run folder of a trial; one that has ended is read once."""
        if (training := self._trainings.get(trial.path)) is None:
            folder = RunFolder.open(trial.path)
            training = _training_of(trial, folder)
            if folder.ending is not None:
                self._trainings[trial.path] = training
        return replace(training, variant=trial.variant.name)


def _training_of(trial: Trial, folder: RunFolder) -> Training:
    constant = (folder.ending or {}).get("constant channels", {})
    if math.isnan(guess := _guess_of(folder)) and not folder.configuration["network"].get("trained_by"):
        raise RunFolderError(
            f"{folder.path} has no foreground share of its images in its facts: restore its config.json"
        )
    groups = () if math.isnan(guess) else tuple(folder.facts["data"]["validation"].get("groups", ()))
    return Training(trial.variant.name, trial.seed, folder.epochs(), guess, constant, folder.failure, groups)


def _guess_of(folder: RunFolder) -> float:
    """The cross-entropy of the best guess that looks at no image, in nats a pixel; NaN if the shares of classes are not known.

    Of a loop of the user's no loss is known, and so neither is that of the best guess.
    """
    data = folder.facts.get("data", {})
    shares = [data.get(part, {}).get("foreground share") for part in ("train", "validation")]
    if None in shares or folder.configuration.get("network", {}).get("trained_by"):
        return math.nan
    of_classes = [data[part].get("class shares") for part in ("train", "validation")]
    return guess_nats(*shares) if None in of_classes else guess_of_classes(*of_classes)
