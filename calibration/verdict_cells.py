"""What tells, before anything is retrained, how much Dice a network loses without some of its parts?

    python -m calibration.verdict_cells build/verdicts --tasks mixed ring --networks unet

A cell is a task and a network. The network is trained by `unetscope run`; at two budgets everything that may predict a loss is
kept: bits, the loss with zeros in the place of the part, Taylor importance, and the loss while the smaller network and the
whole one are trained on. Then `unetscope verify` retrains every design. What is there is not done again.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from calibration.planted import HARD_TASKS, PLANTED_TASKS, planted_task
from calibration.verdict_fit import MARGIN, seeds_losses, seeds_needed
from calibration.verdict_losses import losses
from unetscope.activations import pixels, to_input
from unetscope.analysis import interval_over_images
from unetscope.analysis.gains import probed_loss
from unetscope.base.files import whole_file
from unetscope.base.progress import NoProgress
from unetscope.networks.ablation import replace_streams
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import designed
from unetscope.runs.carrying import Carried, carried, smaller, train_on
from unetscope.runs.engines import InProcess
from unetscope.runs.evidence import gather_evidence
from unetscope.runs.experiment import measure_again
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.kept_silenced import kept_silenced
from unetscope.runs.silencing import Silencing
from unetscope.runs.verification import chosen_variants, verify
from unetscope.table import EVIDENCE_LEVEL, epochs_trained_on
from unetscope.table.parts import Variant, removed_parts
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import RunConfig, preset_config, validated_config
from unetscope.training.trainer import validation_scores

ROOT = Path(__file__).parents[1]
TRAIN, HELD_OUT = 300, 100  # images of a drawn task
TRAINED_ON_FOR = 0.15  # of the budget, for each design
TAYLOR_IMAGES = 128
COMPARED = 5  # designs with an effort of 0.3
EFFORT = 0.3  # of `unetscope verdict`
SMALL_ERROR = MARGIN / 2  # the standard error of a retrained loss that is aimed at
DRAWN: Final = (*PLANTED_TASKS, *HARD_TASKS)


@dataclass(frozen=True)
class Recipe:
    """How the networks of a task are trained. budgets: epochs after which parts are judged; the last is the training's end.
    seeds: of every retraining at first; most_seeds: where these vary so much that they do not tell a loss from the margin.
    """

    budgets: tuple[int, ...]
    values: dict[str, Any]
    seeds: int = 3
    most_seeds: int = 10


SMALL = Recipe(
    (20, 60),  # after 30 epochs the Dice of `mixed` still moved by 0.1 from one to the next, and seeds lay as far apart
    {
        "data.image_size": 32,
        "training.batch_size": 8,
        "network.width": 8,
        "network.depth": 3,
    },
)
REAL = Recipe((20, 60), {"data.image_size": 64, "network.width": 8, "network.depth": 4}, seeds=2)  # an hour each
NETWORKS: Final[dict[str, dict[str, Any]]] = {
    "unet": {},
    "plain-conv-unet": {
        "network.code": f"{ROOT / 'examples' / 'nnunet_network.py'}:plain_conv_unet",
        "network.arguments": ["channels={channels}", "levels={levels}"],
    },
    "basic-unet": {
        "network.code": "monai.networks.nets:BasicUNet",
        "network.arguments": [
            "spatial_dims=2", "in_channels={channels}", "out_channels=1", "features=[8,8,16,32,64,8]",
        ],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Images and masks, by the words of the command. classes are binary."""

    name: str
    data: dict[str, Any]
    channels: int
    recipe: Recipe


class Cell:
    """A task and a network, in a folder."""

    def __init__(self, folder: Path, task: Task, network: str) -> None:
        self.folder, self.task, self.network = folder / f"{task.name}-{network}", task, network

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "run"

    def config(self, epochs: int) -> RunConfig:
        """Of the whole network, trained for so many epochs."""
        recipe, filled = self.task.recipe, {}
        for name, value in NETWORKS[self.network].items():
            levels = recipe.values["network.depth"] + 1
            filled[name] = (
                [word.format(channels=self.task.channels, levels=levels) for word in value]
                if isinstance(value, list)
                else value
            )
        values = {
            name: value
            for name, value in recipe.values.items()
            if not filled or name not in ("network.width", "network.depth")
        }
        measuring = {
            "measuring.marked": [budget for budget in recipe.budgets if budget <= epochs],
            "measuring.noise_variances": [],
            "measuring.bin_sizes": [],
        }
        training = {"training.epochs": epochs, "training.device": "cpu", "threads": 1}
        return preset_config("quick", {**values, **filled, **self.task.data, **measuring, **training})

    def fill(self, say: Callable[[str], None]) -> None:
        """Do what is left of the cell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        say(f"{self.folder.name}: run")
        budgets = self.task.recipe.budgets
        self._train(self.run, budgets[-1])
        judged = AnalysedRun.open(self.run)
        designs = chosen_variants(judged, self._designs(judged))[1:]
        for budget in budgets:
            for design in designs:
                self._keep(f"{budget}-{design.name}", say, lambda at=budget, of=design: predictors(self, at, of))
        self._retrain([design.name for design in designs], say)
        self._keep("probed", say, lambda: probed(self.run, budgets))
        for budget in budgets:
            self._keep(f"effort-{budget}", say, lambda at=budget: self._effort(at))

    def _train(self, run: Path, epochs: int) -> None:
        """Train the whole network, or go on as it began: presets change from version to version."""
        begun = RunFolder.exists(run)
        config = validated_config(RunFolder.open(run).configuration) if begun else self.config(epochs)
        run_experiment(config, run, resume=begun)

    def _effort(self, budget: int) -> dict[str, Any]:
        """What the command keeps of a run of so many epochs after an effort, as plain values."""
        run = self.folder / f"run-{budget}"
        if budget < self.task.recipe.budgets[-1]:
            self._train(run, budget)
        elif not run.exists():
            beside = run.with_suffix(".part")
            shutil.rmtree(beside, ignore_errors=True)
            shutil.copytree(self.run, beside, ignore=shutil.ignore_patterns("verification"))
            beside.rename(run)
        evidence = gather_evidence(run, EFFORT)
        silenced = kept_silenced(RunFolder.open(run))
        return {
            "evidence": evidence.as_dict(),
            "silenced": [row.as_dict() for row in silenced if row.epoch == budget],
        }

    def _retrain(self, designs: list[str], say: Callable[[str], None]) -> None:
        """Retrain every design, with more seeds where their losses vary."""
        recipe, seeds, there = self.task.recipe, self.task.recipe.seeds, 0
        while seeds > there:
            say(f"{self.folder.name}: verify")
            verify(self.run, designs, seeds=seeds, engine=InProcess())
            retrained = losses(AnalysedRun.open(self.run), recipe.budgets)
            curves = retrained["curves"]
            there = len(curves["model1"])
            by_budget = [[seeds_losses(curves, budget, name) for name in designs] for budget in recipe.budgets]
            seeds = max(seeds_needed(by_design, SMALL_ERROR, recipe.most_seeds) for by_design in by_budget)
        if len(self.kept().get("losses", {}).get("curves", {}).get("model1", ())) < there:
            (self.folder / "losses.json").unlink(missing_ok=True)
        self._keep("losses", say, lambda: retrained)

    def _designs(self, judged: AnalysedRun) -> list[str]:
        if (self.folder / "losses.json").exists():  # what is proposed changes from version to version
            return [name for name in self.kept()["losses"]["curves"] if name != "model1"]
        proposed = ["proposed"] if judged.judged().design() is not None else []
        deeper = ["depths"] if judged.judged().depth > 1 else []
        return ["skips", *deeper, "no-skips", *proposed]

    def kept(self) -> dict[str, Any]:
        """What is there, by name."""
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in self.folder.glob("*.json")}

    def _keep(self, name: str, say: Callable[[str], None], make: Callable[[], Any]) -> None:
        path = self.folder / f"{name}.json"
        if path.exists():
            return
        say(f"{self.folder.name}: {name}")
        began = time.monotonic()
        values = make() | {"seconds": time.monotonic() - began}
        with whole_file(path) as beside:
            beside.write_text(json.dumps(values), encoding="utf-8")


def predictors(cell: Cell, budget: int, design: Variant) -> dict[str, Any]:
    """All that may predict the loss of a design after so many epochs, of the run alone."""
    judged = AnalysedRun.open(cell.run)
    of_run = replace(carried(judged, "model1", or_whole=True, code=None, progress=NoProgress()), epoch=budget)
    Checkpoints(of_run.run.folder.checkpoints).load_weights(budget, of_run.whole.model)
    whole = float(validation_scores(of_run.whole.model, of_run.held_out, of_run.whole.reading).mean)
    small, beside = (_trained_on(cell, of_run, each) for each in (design, of_run.design))
    groups = of_run.held_out.group_numbers
    lost, level = np.subtract(beside.images, small.images), 1 - (1 - EVIDENCE_LEVEL) / COMPARED
    gap = interval_over_images(lost[None], () if groups is None else groups.tolist(), level)
    return {
        "design": design.as_dict(),
        "whole": whole,
        "bits": bits_share(judged, budget, design),
        "verdict": judged.judged().of_variant(design, epoch=budget),
        **_silenced(of_run, design, whole),
        "curve": small.curve,
        "curve of the whole": beside.curve,
        "gap": None if gap is None else asdict(gap),
    }


def probed(run: Path, budgets: Iterable[int]) -> dict[str, Any]:
    """The Dice that probes lose without each part of a run's network, by budget and by the design that lacks it."""
    probed_again = measure_again(run, {"merge_probes": True}, epochs=list(budgets))
    analysed = AnalysedRun.open(probed_again.path)
    judged = analysed.judged()
    names = ["skips", *(["depths"] if judged.depth > 1 else [])]
    return {
        str(budget): {
            design.name: probed_loss(removed_parts(design, judged.depth, judged.without), judged.gains[budget])
            for design in chosen_variants(analysed, names)[1:]
        }
        for budget in budgets
    }


def bits_share(judged: AnalysedRun, budget: int, design: Variant) -> float:
    """The share of the output's bits that the conditional rule finds in what a design lacks, added up; NaN if not known."""
    judgement = judged.judged()
    verdicts = {v.part: v for v in judgement.at(budget) if v.rule == "conditional"}
    removed = [verdicts[part] for part in removed_parts(design, judgement.depth, judgement.without) if part in verdicts]
    skips, levels = [v for v in removed if v.part.is_skip], [v for v in removed if not v.part.is_skip]
    wholes = [gain.whole for gain in judgement.gains[budget].values() if gain.is_known]
    return sum(verdict.bits for verdict in [*skips, *levels[:1]]) / wholes[0] if wholes else float("nan")


def _silenced(of_run: Carried, design: Variant, whole: float) -> dict[str, float]:
    """The loss of Dice with zeros in the place of what a design lacks, and the change of the loss that its slope there tells:
    Taylor importance of a gate on the stream (Molchanov et al., CVPR 2019), in nats a pixel.
    """
    network = of_run.whole
    silencing = Silencing(network, of_run.design, of_run.held_out)
    silenced = float(np.nanmean(silencing.dice(design)))
    gate = torch.ones((), requires_grad=True)
    rows = torch.arange(min(TAYLOR_IMAGES, len(of_run.train)))
    images = to_input(pixels(of_run.train)[rows], of_run.train.scale)
    masks = torch.from_numpy(of_run.train.masks)[rows][:, None]
    network.model.eval()
    streams = {name: silencing.structure.stream_of(name) for name in silencing.silenced_parts(design)}
    with replace_streams(network.model, streams, lambda _, stream: stream * gate):
        output = network.reading(network.model(images), of_run.train.image_size)
        (slope,) = torch.autograd.grad(network.reading.task.loss(output, masks), gate)
    return {"silenced": whole - silenced, "taylor": abs(float(slope))}


@dataclass
class TrainedOn:
    """A design trained on. curve: the mean validation Dice before and after each epoch. images: Dice of each image after as
    many epochs as `unetscope verdict --effort` trains.
    """

    curve: list[float]
    images: list[float]


def _trained_on(cell: Cell, of_run: Carried, design: Variant) -> TrainedOn:
    """A design trained on from the weights of the budget."""
    folder = cell.folder / "trained-on" / f"{of_run.epoch}-{design.name}"
    kept = folder.with_suffix(".json")
    if kept.exists():
        return TrainedOn(**json.loads(kept.read_text(encoding="utf-8")))
    shutil.rmtree(folder, ignore_errors=True)
    config, asked = designed(of_run.config, design), epochs_trained_on(of_run.epoch)
    network, _ = smaller(of_run.whole, config, of_run.train) if design != of_run.design else (of_run.small, 1.0)
    if design == of_run.design:
        Checkpoints(of_run.run.folder.checkpoints).load_weights(of_run.epoch, network.model)
    trained = TrainedOn([], [])

    def on_epoch(epoch: int, dice: float) -> None:
        trained.curve.append(dice)
        if epoch == asked:
            trained.images = validation_scores(network.model, of_run.held_out, network.reading).images.tolist()

    train_on(of_run, network, folder, max(asked, round(TRAINED_ON_FOR * of_run.epoch)), on_epoch)
    shutil.rmtree(folder)
    kept.write_text(json.dumps(asdict(trained)), encoding="utf-8")
    return trained


def drawn(name: str, folder: Path) -> Task:
    """A drawn task, as archives of images and masks."""
    paths = {"data.path": folder / f"{name}-train.zip", "data.validation": folder / f"{name}-held-out.zip"}
    for seed, (count, path) in enumerate(zip((TRAIN, HELD_OUT), paths.values(), strict=True)):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            data = planted_task(name, count, seed=seed).data
            with whole_file(path) as beside, zipfile.ZipFile(beside, "w") as archive:
                for kind, arrays in (("images", data.images[:, 0]), ("masks", data.masks * 255)):
                    for number, array in enumerate(arrays):
                        archive.writestr(f"{kind}/{number:05d}.png", _png(array))
    return Task(name, {key: str(path) for key, path in paths.items()}, 1, SMALL)


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def main() -> None:
    """Fill the cells that are named, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=[*DRAWN, "nuclei", "membranes"], default=list(DRAWN))
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--nuclei", nargs=2, metavar=("TRAIN", "VAL"))
    parser.add_argument("--membranes", metavar="TRAIN")
    parser.add_argument("--most-seeds", type=int, default=SMALL.most_seeds, help="of a retraining that varies much")
    words = parser.parse_args()
    torch.set_num_threads(1)
    for network in words.networks:
        for name in words.tasks:
            task = named_task(name, words)
            task = replace(task, recipe=replace(task.recipe, most_seeds=max(task.recipe.seeds, words.most_seeds)))
            Cell(words.folder, task, network).fill(lambda text: print(time.strftime("%H:%M:%S"), text, flush=True))


def named_task(name: str, words: argparse.Namespace) -> Task:
    """A task by its name. Raises: SystemExit if its images are not given."""
    if name in DRAWN:
        return drawn(name, words.folder / "tasks")
    if getattr(words, name) is None:
        raise SystemExit(f"--{name}: name the archives of {name}")
    if name == "nuclei":
        train_path, val_path = words.nuclei
        return Task(name, {"data.path": train_path, "data.validation": val_path}, 3, REAL)
    groups = {"data.groups": r"s(\d+)_", "data.validation_share": 0.33}
    return Task(name, {"data.path": words.membranes, **groups}, 1, REAL)


if __name__ == "__main__":
    main()
