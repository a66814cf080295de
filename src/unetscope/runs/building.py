"""The network of a configuration: this package's U-Net, or what the user's own code builds, without the parts that go."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unetscope.activations import device_of
from unetscope.base import InvalidArgument, NetworkError, RunFolderError, consent, first_line, preserve_rng, seed_all
from unetscope.networks import Structure, UNet, build_network, gives_probabilities, inspect, named_object, without
from unetscope.runs.code_consent import CONSENT, consented_text
from unetscope.runs.folder import RunFolder
from unetscope.runs.own_loops import configuration_of
from unetscope.table import LEVEL, SKIP, Layer, Part, Skip, Variant, parts_named
from unetscope.training import (
    NetworkConfig,
    OutputForm,
    OutputReading,
    RunConfig,
    Task,
    image_tensors,
    main_tensor,
    resolved_device,
    validated_config,
)

SIDES_TRIED = (32, 32, 32)  # of a small volume that most networks take


@dataclass(frozen=True, eq=False)
class BuiltNetwork:
    """A network with what is measured in it, and how its output is read.

    depth: the levels at which skips join in the network before any part went. fingerprint: of the network that code built, to
    tell whether the code has changed since; empty for this package's. gaps: where that network could not be followed.
    structure: of that network as it is, without the parts that are left out, None for this package's. lacking: those parts.
    `skips` have the names that they have in the whole network, in whose words designs speak; those of `structure` are numbered
    anew where some were left out.
    """

    model: nn.Module
    layers: tuple[Layer, ...]
    skips: tuple[Skip, ...]
    reading: OutputReading
    depth: int
    fingerprint: str = ""
    gaps: tuple[str, ...] = ()
    structure: Structure | None = None
    lacking: tuple[Part, ...] = ()


def built_network(config: RunConfig, channels: int, classes: int = 2, ignore: int | None = None) -> BuiltNetwork:
    """The network of a configuration for images of so many channels, with the weights that its seed gives, on its device.

    Of this package's U-Net, weights are drawn from the input to the output, so two networks of one seed share those of every
    layer up to the first that differs in shape. Of a network that code builds, the parts are taken out of the whole one, so
    that all weights that are left are shared.

    Raises: UnetscopeError for what the user can mend, such as code that cannot be run, or a part that cannot be left out.
    """
    task = Task(classes, ignore)
    seed_all(config.seed)
    device = resolved_device(config.training)
    network, sides = config.network, config.data.sides
    if network.code is not None:
        try:
            built = network_of_code(network, (channels, *sides), task)
            _refuse_untrainable(network.code, built, (channels, *sides))
        except Exception:
            _refuse_other_sides(network, channels, sides)
            raise
        built.model.train().to(device)
        return built
    model = UNet(
        network.width,
        network.depth,
        without=network.without,
        in_channels=channels,
        out_channels=task.outputs,
        initialisation=network.initialisation,
    )
    return BuiltNetwork(model.to(device), model.layers, model.skips, OutputReading(task), network.depth)


def _refuse_untrainable(code: str, built: BuiltNetwork, shape: tuple[int, ...]) -> None:
    """Raises: NetworkError for a network that does not run on two images, that has an output which cannot be read, or which no
    training changes, before anything is trained.
    """
    model = copy.deepcopy(built.model)  # a pass in training changes running statistics
    images = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        try:
            with torch.set_grad_enabled(training), preserve_rng():
                output = model.train(training)(images)
        except Exception as error:
            mode = "training" if training else "evaluation"
            raise NetworkError(
                f"{code} does not run on two images [2, {', '.join(map(str, shape))}] in {mode} mode: {first_line(error)}"
            ) from error
        probabilities = built.reading(output, shape[1:])
    if not probabilities.requires_grad:
        raise NetworkError(
            f"{code} gives an output without gradients in training mode, so no training can change it: all its weights are "
            "frozen (requires_grad), or it computes without gradients (torch.no_grad, detach)"
        )


def _refuse_other_sides(network: NetworkConfig, channels: int, sides: tuple[int, ...]) -> None:
    """Raises: InvalidArgument if a network that fails on images of some sides takes flat images where these are volumes, or
    the other way round.
    """
    assert network.code is not None
    are_volumes = len(sides) == 3
    tried = sides[-2:] if are_volumes else SIDES_TRIED
    try:
        with torch.no_grad():
            output = build_network(network.code, network.values).eval()(torch.rand(2, channels, *tried))
        main_tensor(output, len(tried))
    except Exception:  # it fails on both, and the first failure is the one to tell
        return
    size = "x".join(map(str, sides))
    raise InvalidArgument(
        f"the network of {network.code} takes flat images, and image size {size} is of volumes: say --image-size "
        f"{'x'.join(map(str, tried))}, which makes an image of each slice, or name a network that takes volumes"
        if are_volumes
        else f"the network of {network.code} takes volumes, and image size {size} is of flat images: give volumes and "
        f"--image-size DEPTHxHEIGHTxWIDTH, such as 16x{size}, or name a network that takes flat images"
    )


def same_weights_for_every_seed(network: NetworkConfig) -> tuple[str, ...]:
    """A warning if what a run names is a network already, and not what builds one."""
    if network.code is None or not isinstance(named_object(network.code), nn.Module):
        return ()
    return (
        f"{network.code} is a network, and not what builds one: it begins with the same weights whatever the seed, so "
        "trainings with several seeds differ in the order of the images alone",
    )


def untrained_predictions(config: RunConfig, network: BuiltNetwork, channels: int) -> tuple[str, ...]:
    """A warning if a network gives several predictions in training, and one alone is trained.

    Raises: InvalidArgument if all are to be trained, and there is one alone, or one that does not predict the masks.
    """
    supervised = config.training.deep_supervision
    if not supervised and config.network.code is None:
        return ()
    largest, *smaller = _predictions_in_training(network, (channels, *config.data.sides))
    same = [shape for shape in smaller if shape[0] == largest[0]]
    if supervised and not smaller:
        raise InvalidArgument("--deep-supervision: the network gives one prediction in training, so leave it out")
    if supervised and len(same) < len(smaller):
        shapes = ", ".join(str(list(shape)) for shape in smaller)
        raise InvalidArgument(
            f"--deep-supervision: the network gives {list(largest)} in training, and beside it {shapes}: expected "
            f"{largest[0]} channels of each, so leave it out"
        )
    if supervised or not same:
        return ()
    return (
        f"the network gives {1 + len(same)} predictions in training, of which the first of the highest resolution is trained: "
        "--deep-supervision trains them all",
    )


def _predictions_in_training(network: BuiltNetwork, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the tensors of images that a network gives in training for two images of a shape, the largest first.

    In evaluation it may give fewer.
    """
    model = copy.deepcopy(network.model).train()  # a pass in training changes running statistics
    image = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)).to(device_of(model))
    with torch.no_grad(), preserve_rng():
        return tuple(tuple(each.shape[1:]) for each in image_tensors(model(image), len(shape) - 1))


def network_of_code(network: NetworkConfig, shape: tuple[int, ...], task: Task) -> BuiltNetwork:
    """The network that code builds for images of a shape, without the parts that its configuration leaves out, on the CPU."""
    return left_out(_of_code(network, shape, task), network)


def _of_code(network: NetworkConfig, shape: tuple[int, ...], task: Task) -> BuiltNetwork:
    """The whole network that code builds, on the CPU."""
    assert network.code is not None
    model = build_network(network.code, network.values)
    structure = inspect(model, torch.rand((1, *shape), generator=torch.Generator().manual_seed(0)))
    trained_elsewhere = network.trained_by is not None  # and its output is read there
    form = "logits" if trained_elsewhere else network.output or _form(structure, network.code)
    return BuiltNetwork(
        model,
        structure.layers,
        structure.skips,
        OutputReading(task, form),
        depth=max((skip.part.level for skip in structure.skips), default=0),
        fingerprint=_fingerprint(model, structure),
        gaps=tuple(map(str, structure.gaps)),
        structure=structure,
    )


def left_out(whole: BuiltNetwork, network: NetworkConfig) -> BuiltNetwork:
    """A network that code built without the parts that a configuration leaves out, with its weights, on the CPU.

    Raises: InvalidArgument for a part that it has not, NetworkError for one that cannot be left out.
    """
    structure = whole.structure
    assert structure is not None
    if not (parts := parts_left_out(network, whole.skips, whole.lacking)):
        return whole
    names = names_in(structure, (skip.part for skip in whole.skips))
    model = without(whole.model.cpu(), structure, *(_name_of(part, names) for part in parts))
    left = inspect(model, structure.example, detail=structure.detail)
    kept = sorted(skip.part for skip in whole.skips if skip.part.level <= network.depth and skip.part not in parts)
    lacking = (*whole.lacking, *parts)
    if len(kept) != len(left.skips):  # as where skips feed one another: a design for itself, in which nothing is judged
        gap = (
            f"{len(left.skips)} skips are found where {len(kept)} of the whole network's should be left: none is judged"
        )
        gaps = (*whole.gaps, gap)
        return replace(whole, model=model, layers=left.layers, skips=(), structure=left, lacking=lacking, gaps=gaps)
    part_of = {name: str(part) for part, name in names_in(left, kept).items()}
    skips = tuple(replace(skip, name=part_of[skip.name]) for skip in left.skips)
    return replace(whole, model=model, layers=left.layers, skips=skips, structure=left, lacking=lacking)


def names_in(structure: Structure, skips: Iterable[Part]) -> dict[Part, str]:
    """The names of skips in the structure of a network that has just these, and numbers them anew if others were left out.

    Raises: NetworkError if it has more or fewer.
    """
    expected, names = sorted(skips), [str(part) for part in sorted(skip.part for skip in structure.skips)]
    if len(expected) != len(names):
        raise NetworkError(
            f"{structure.name} has {len(names)} skips where {len(expected)} were expected: name the whole network or another "
            "design"
        )
    return dict(zip(expected, names, strict=True))


def _name_of(part: Part, names: Mapping[Part, str]) -> str:
    """The name of a skip or a level in a structure. names: of skips there."""
    return str(Part.named(names[part.beside(SKIP)]).beside(part.kind))


def smaller_network(whole: BuiltNetwork, config: RunConfig, channels: int, classes: int) -> BuiltNetwork:
    """The network of a configuration that leaves out some of the whole one; of one that code built, with its weights."""
    if whole.structure is None:
        return built_network(config, channels, classes)
    device = next(whole.model.parameters()).device
    try:
        small = left_out(whole, config.network)
    finally:  # a part that cannot be left out leaves the whole network where it was
        whole.model.to(device)
    small.model.to(device)
    return small


def designed(config: RunConfig, design: Variant) -> RunConfig:
    """The configuration of a design."""
    return config.model_copy(update={"network": config.network.model_copy(update=design.network)})


def local_config(folder: RunFolder) -> RunConfig:
    """A run's configuration with this machine's device: a network trained with CUDA can be read where there is none."""
    config = validated_config(configuration_of(folder))
    if config.training.device != "cuda":
        return config
    return config.model_copy(update={"training": config.training.model_copy(update={"device": "auto"})})


def code_and_arguments(network: NetworkConfig, channels: int, task: Task) -> tuple[str, tuple[str, ...]]:
    """What builds the network of a configuration, without the parts of a code's that go: its name and its arguments.

    >>> code_and_arguments(NetworkConfig(width=8, depth=2, without=("skip1",)), 3, Task())
    ('unetscope.networks:UNet', ('width=8', 'depth=2', "without=['skip1']", 'in_channels=3', 'out_channels=1'))
    """
    if network.code is not None:
        return network.code, network.arguments
    own = {"width": network.width, "depth": network.depth, "without": list(network.without)}
    values = own | {"in_channels": channels, "out_channels": task.outputs}
    return "unetscope.networks:UNet", tuple(f"{name}={value}" for name, value in values.items())


def parts_left_out(network: NetworkConfig, skips: tuple[Skip, ...], lacking: Collection[Part] = ()) -> tuple[Part, ...]:
    """The parts that a configuration leaves out of the network of its code, which lacks some already.

    A depth less than that of the network leaves out the deepest levels: the upsampled stream of the last merge of the first
    of them, with all that only feeds it.

    >>> skips = (Skip("skip1", "2", "8up", "8"), Skip("skip2", "4", "6up", "6"))
    >>> list(map(str, parts_left_out(NetworkConfig(code="nets:Net", depth=1, without=("skip1",)), skips)))
    ['skip1', 'level2']
    """
    named = [part for part in parts_named(network.without) if part not in lacking]
    if unknown := [part for part in named if part.beside(SKIP) not in {skip.part for skip in skips}]:
        names = ", ".join(skip.name for skip in skips) or "none"
        raise InvalidArgument(f"the network of {network.code} has no {unknown[0]}: its skips are {names}")
    deeper = sorted((skip.part for skip in skips if skip.part.level == network.depth + 1), key=lambda part: part.depth)
    levels = [deeper[0].beside(LEVEL)] if deeper else []
    return tuple(part for part in named if part.level <= network.depth) + tuple(levels)


def _form(structure: Structure, code: str) -> OutputForm:
    if (is_probability := gives_probabilities(structure)) is not None:
        return "probabilities" if is_probability else "logits"
    raise NetworkError(
        f"whether {code} gives probabilities or logits cannot be told from its last function: say --network-output"
    )


def _fingerprint(model: nn.Module, structure: Structure) -> str:
    """What a network computes, as far as its calls and its weights tell: not the values of the weights."""
    calls = [(node.name, node.inputs, node.shape) for node in structure.graph.nodes]
    weights = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    return hashlib.sha256(repr((calls, weights)).encode()).hexdigest()[:32]


# What a run's facts say of it.


def network_facts(network: NetworkConfig, built: BuiltNetwork) -> dict[str, Any]:
    """What tells a network that code builds from another, and the user's consent to run that code; nothing of the U-Net's."""
    if network.code is None:
        return {}
    of_network = {"class": type(built.model).__name__, "fingerprint": built.fingerprint, "output": built.reading.form}
    return {"network": of_network, CONSENT: consent(consented_text(network.model_dump()))}


def refuse_other_network(folder: RunFolder, built: BuiltNetwork) -> None:
    """Raises: RunFolderError if the code of a run builds another network than when the run began."""
    if built.fingerprint != folder.facts.get("network", {}).get("fingerprint", ""):
        raise RunFolderError(
            f"{folder.configuration['network']['code']} builds another network than the one that {folder.path} was begun "
            "with: bring the code back, or choose another --out"
        )
