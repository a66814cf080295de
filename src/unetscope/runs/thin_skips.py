"""The network of a run with thin skips: few directions of their channels are kept until the merge."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unetscope import plots
from unetscope.activations import device_of, pixels, to_input
from unetscope.base import InvalidArgument, NetworkError, NoProgress, Progress
from unetscope.data import SegmentationData
from unetscope.measure import Probes, Scope
from unetscope.networks import Structure, inspect, skip_directions, thinned
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import BuiltNetwork, names_in
from unetscope.runs.carrying import Carried, carried, inspected
from unetscope.runs.smaller_files import FOLDER
from unetscope.table import Quantity, ThinSkip
from unetscope.training import validation_scores

MOST_IMAGES = 256  # that directions are found on, evenly spaced


def parse_thin(words: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """How many directions of which skips to keep, of words such as `skip1=4`, or several numbers to compare.

    Raises: InvalidArgument for words that are not of that form.

    >>> parse_thin(["skip1=4", "skip2=1,2,8"])
    {'skip1': (4,), 'skip2': (1, 2, 8)}
    """
    kept: dict[str, tuple[int, ...]] = {}
    for word in words:
        if (parts := re.fullmatch(r"(skip[1-9]\d{0,3}[a-z]*)=([1-9]\d{0,5}(?:,[1-9]\d{0,5})*)", word)) is None:
            raise InvalidArgument(
                f"--thin {word[:60]}: expected a skip and how many of its directions to keep, such as skip1=4"
            )
        if parts[1] in kept:
            raise InvalidArgument(f"--thin {word[:60]}: {parts[1]} is named twice")
        kept[parts[1]] = tuple(dict.fromkeys(map(int, parts[2].split(","))))
    return kept


def with_thin_skips(of_run: Carried, kept: Mapping[str, int]) -> BuiltNetwork:
    """The smaller network with the strongest directions of some skips alone, found on training images.

    kept: by the names of skips in the whole network. Raises: as `networks.thinned`, and NetworkError for a skip that the
    smaller network does not have.
    """
    model, device, images = of_run.small.model, device_of(of_run.small.model), _images(of_run.train)
    structure = inspect(model.cpu(), images[:1])
    names = _names_in_small_network(of_run, structure, kept)
    thin = thinned(model, structure, {names[skip]: number for skip, number in kept.items()}, images)
    for network in (model, thin):
        network.to(device)
    return replace(of_run.small, model=thin)


def _names_in_small_network(of_run: Carried, structure: Structure, skips: Iterable[str]) -> dict[str, str]:
    """The names of skips in the smaller network, which numbers those that it has, by their names in the whole one."""
    design = of_run.design
    left = [part for part in (skip.part for skip in of_run.whole.skips) if part.level <= design.depth]
    names = {str(part): name for part, name in names_in(structure, set(left) - set(design.without)).items()}
    if lacking := [skip for skip in skips if skip not in names]:
        raise NetworkError(f"{design.text} has no {lacking[0]}: its skips are {', '.join(names) or 'none'}")
    return names


def compare_thin(
    run: str | Path,
    kept: Mapping[str, Sequence[int]],
    design: str = "proposed",
    *,
    code: str | None = None,
    progress: Progress | None = None,
) -> tuple[float, tuple[ThinSkip, ...]]:
    """The validation Dice of a run's network, and what each number of directions of a skip leaves at once, without training:
    of the Dice, and of what the skip tells of the mask beside the upsampled path (a convolutional probe, fitted anew).

    kept: numbers of directions by skip; the other skips are whole. design, code: as of `slim`. The picture is
    RUN/slim/thin-skips.png.

    Raises: as `slim`.
    """
    progress = progress or NoProgress()
    of_run = carried(AnalysedRun.open(run), design, or_whole=True, code=code, progress=progress)
    images, whole = _images(of_run.train), of_run.small
    device, dice_whole = device_of(whole.model), validation_scores(whole.model, of_run.held_out, whole.reading).mean
    structure = inspect(whole.model.cpu(), images[:1])
    names = _names_in_small_network(of_run, structure, kept)
    directions = skip_directions(whole.model, structure, list(map(names.__getitem__, kept)), images)
    pairs = [(skip, number) for skip, numbers in kept.items() for number in numbers]
    progress.stage("thin skips", len(pairs))
    compared = []
    for done, (skip, number) in enumerate(pairs):
        progress.advance(done, f"{skip} of {number}")
        thin = thinned(whole.model, structure, {names[skip]: number}, images).to(device)
        dice = validation_scores(thin, of_run.held_out, whole.reading).mean
        of_skip = directions[names[skip]]
        information = _information(thin, names[skip], of_run)
        compared.append(ThinSkip(skip, number, len(of_skip.strengths), of_skip.share(number), dice, *information))
    progress.advance(len(pairs))
    folder = of_run.run.folder.path / FOLDER
    folder.mkdir(exist_ok=True)
    figure = plots.thin_skip_curves(compared, dice_whole)[0].get_figure(root=True)
    assert figure is not None
    plots.save(figure, folder, "thin-skips")
    return dice_whole, tuple(compared)


def _information(thin: nn.Module, skip: str, of_run: Carried) -> tuple[float, float, float]:
    """I_V(S→Y|U) of a skip in bits a pixel, with its interval; NaN where probes do not tell it."""
    structure = inspected(thin, _images(of_run.train)[:1])
    (of_skip,) = (each for each in structure.skips if each.name == skip)
    at_merge = {of_skip.source, of_skip.upsampled, of_skip.merge}
    scope = Scope(
        thin,
        of_run.train.subset(_rows(of_run.train)),
        layers=[layer for layer in structure.layers if layer.label in at_merge],
        skips=[of_skip],
        estimators=(),
        labels=(),
        held_out=of_run.held_out,
        probes=Probes(layers=()),
    )
    (added,) = (estimate for estimate in scope.measure(0) if estimate.quantity == Quantity.USABLE_SKIP_GIVEN_UPSAMPLED)
    return added.bits, added.low, added.high


def _rows(train: SegmentationData) -> list[int]:
    """Training images, evenly spaced."""
    return torch.linspace(0, len(train.images) - 1, min(len(train.images), MOST_IMAGES)).long().tolist()


def _images(train: SegmentationData) -> Tensor:
    """Training images as a network takes them."""
    return to_input(pixels(train)[_rows(train)], train.scale)
