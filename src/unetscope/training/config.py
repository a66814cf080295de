"""What a run is made of: every value and its domain.

A flag of the command changes one value of a preset. The flags are derived from the models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)

from unetscope.base import InvalidArgument, parse_arguments, spelled
from unetscope.table import BLOCKS, CLUSTERS, INITIALISATIONS, MAX_DEPTH, Setting, settings
from unetscope.training.flags import BYTES, CODE, GROUPS, MARKED, PATH, SIDES, ScheduleName, spell_sides
from unetscope.training.presets import PRESETS

MOST_EPOCHS_TRAINED = 1_000_000
MOST_WEIGHTS = 150_000_000  # 0.6 GB, and four times that while Adam trains them
MOST_SYNTHETIC_BYTES = 2**30
LARGEST_SIDE = 4096  # of an image, in pixels
MOST_RESOLUTIONS = 64
MOST_OF_AN_ARGUMENT = 1000
ALL_LEVELS = 1000  # more than any network has
AS_LIST = Field(strict=False)  # of a tuple, which JSON has as a list
Texts = Annotated[tuple[str, ...], AS_LIST]


class Section(BaseModel):
    """A part of the configuration: immutable, without unknown values. A description is the help text of the command's flag."""

    # strict: true is no 1, nor is "8" an 8
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


def _image_size(size: Any) -> int | tuple[int, ...]:
    """One side, or all of them."""
    sides = size if isinstance(size, tuple | list) else [size, size]
    are_sides = len(sides) in (2, 3) and all(type(side) is int and 2 <= side <= LARGEST_SIDE for side in sides)
    if not are_sides:
        raise ValueError(
            f"must be one side, height and width, or depth, height and width, each 2 to {LARGEST_SIDE} pixels, got {size!r}"
        )
    return tuple(sides) if isinstance(size, tuple | list) else int(size)


class DataConfig(Section):
    """Where images come from. Without a path they are synthetic; without a validation path a seeded share is held out."""

    path: Annotated[str | None, PATH] = Field(
        None,
        description="Folder or zip of images and masks [default: synthetic nuclei].",
        json_schema_extra={"flag": "--data"},
    )
    validation: Annotated[str | None, PATH] = Field(
        None,
        description="Folder or zip of validation images [default: a share of --data].",
        json_schema_extra={"flag": "--val"},
    )
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share held out without --val.")
    synthetic_images: int = Field(200, ge=4, le=100_000, description="Number of synthetic nuclei images.")
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description="Seed of synthetic images and of the held-out share.",
        json_schema_extra={"flag": "--data-seed"},
    )
    image_size: Annotated[int | tuple[int, ...], BeforeValidator(_image_size), SIDES] = Field(
        128,
        description="Pixels a side that images are resized to, HEIGHTxWIDTH, or DEPTHxHEIGHTxWIDTH of volumes.",
    )
    volumes: Literal["slices", "patches", "whole"] | None = Field(
        None,
        description="What volumes become: slices, patches of the image size, or whole ones resized to it [default: slices for "
        "two sides, patches for three].",
    )
    groups: Annotated[str | None, GROUPS] = Field(
        None,
        description="Images that belong together: a pattern that captures the group in a file's name, such as "
        "'(patient\\d+)_', or a table NAME.csv of name,group [default: all independent].",
    )
    masks: Literal["binary", "instances", "classes"] | None = Field(
        None,
        description="What masks hold: binary, instances or classes [default: what the whole set looks like].",
    )
    classes: int | None = Field(None, ge=2, le=255, description="Classes of class maps, numbered from 0 on.")
    ignore: int | None = Field(None, ge=0, le=65535, description="Value of pixels without a label, above the classes.")
    accept: Texts = Field((), max_length=64, description="Kind of data problem not to stop at; repeatable.")

    @model_validator(mode="after")
    def _refuse_too_many_pixels(self) -> Self:
        size = self.synthetic_images * 4 * math.prod(self.sides)  # three colours and a mask
        if self.path is None and size > MOST_SYNTHETIC_BYTES:
            raise ValueError(
                f"{self.synthetic_images} synthetic images of {spell_sides(self.sides)} are {size} bytes, at most "
                f"{MOST_SYNTHETIC_BYTES} are made: fewer or smaller ones"
            )
        return self

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides of an image in pixels: height and width, and of a volume the depth before them."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)


class NetworkConfig(Section):
    """The paper's U-Net: channels at the top, levels, skips taken out, how its weights are drawn; or any network, by its code.

    depth: of a network that code builds, the levels of its decoder at which skips join, found when it is built. trained_by: the
    code of the user's that trains it, if this package does not.
    """

    code: Annotated[str | None, CODE] = Field(
        None,
        max_length=4096,
        description="Your own network: FILE.py:NAME or package.module:NAME [default: the paper's U-Net].",
        json_schema_extra={"flag": "--network"},
    )
    arguments: Texts = Field(
        (),
        max_length=64,
        description="Argument of --network, such as width=16; repeatable.",
        json_schema_extra={"flag": "--network-args"},
    )
    output: Literal["probabilities", "logits"] | None = Field(
        None,
        description="What --network gives: probabilities or logits [default: by its last function].",
        json_schema_extra={"flag": "--network-output"},
    )
    trained_by: str | None = Field(None, max_length=4096, json_schema_extra={"flag": ""})
    width: int = Field(16, ge=1, le=1024, description="Channels at full resolution.")
    depth: int = Field(4, ge=1, le=ALL_LEVELS, description="Levels below full resolution, 1 to 6.")
    without: Texts = Field((), max_length=64, description="Skip to take out, such as skip1; repeatable.")
    initialisation: Literal["glorot", "he"] = Field("glorot", description="Of weights: {choices}.")

    @model_validator(mode="after")
    def _refuse_what_cannot_be_trained(self) -> Self:
        if long := next((argument for argument in self.arguments if len(argument) > MOST_OF_AN_ARGUMENT), None):
            raise ValueError(f"an argument must be at most {MOST_OF_AN_ARGUMENT} characters, got {len(long)}")
        if self.code is None and self.depth > MAX_DEPTH:
            raise ValueError(f"depth must be 1 to {MAX_DEPTH}, got {self.depth}")
        if self.code is None and (weights := most_weights(self.width, self.depth)) > MOST_WEIGHTS:
            raise ValueError(
                f"width {self.width} at depth {self.depth} makes {weights} weights, at most {MOST_WEIGHTS} are trained"
            )
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The arguments of the code by name. Raises: InvalidArgument for one without a name, or two of one name."""
        return parse_arguments(self.arguments)


def most_weights(width: int, depth: int) -> int:
    """About the number of weights of a U-Net with all its skips, from its 3×3 and 2×2 kernels.

    >>> most_weights(16, 4)             # UNet(width=16) has 1941105, biases and the first and last layer included
    1938944
    """
    channels = [width * 2**level for level in range(depth + 1)]
    encoder = sum(9 * outer * inner for outer, inner in pairwise(channels))
    decoder = sum((4 * inner + 18 * outer) * outer for outer, inner in pairwise(channels))
    return encoder + decoder + 9 * sum(count**2 for count in (*channels, *channels[:-1]))


class TrainingConfig(Section):
    """How a network is trained. The loss is cross-entropy, binary or of several classes.

    deep_supervision: see `Task.supervised_loss`. The training loss that is recorded is that of the largest prediction.

    precision: of the forward and backward pass (weights are float32 always); auto is bfloat16 where the processor has it, else
    float32. device: auto is cuda where there is one, else cpu. cuda_graphs: see `ReplayedSteps`; not for a network whose steps
    differ from each other.
    """

    epochs: int = Field(100, ge=0, le=MOST_EPOCHS_TRAINED, description="Training epochs.")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("adam", description="{choices}.")
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate.", json_schema_extra={"alias": "--lr"})
    warm_up_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS_TRAINED, description="Epochs over which the learning rate rises."
    )
    batch_size: int = Field(16, ge=1, le=65_536, description="Images a training step.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="{choices}.")
    channels_last: bool = Field(True, description="Memory layout.")
    deep_supervision: bool = Field(
        False, description="Train all predictions of a network that gives several, not the largest alone."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="{choices}.")
    cuda_graphs: bool | None = Field(
        None, description="Replay training steps as CUDA graphs [default: on a GPU, of the paper's U-Net]."
    )


class Sampling(Section):
    """When is measured, and on how many of the training images (all by default)."""

    marked: Annotated[ScheduleName | Annotated[tuple[int, ...], AS_LIST], MARKED] = Field(
        "log", description="Epochs to measure: log, paper, or such as 1,10,100."
    )
    probe_images: int | None = Field(
        None, ge=2, le=10_000_000, description="Training images to measure on [default: all]."
    )


def _resolutions(values: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse resolutions that are not positive, or that stand twice."""
    if len(values) > MOST_RESOLUTIONS:
        raise ValueError(f"must be at most {MOST_RESOLUTIONS} values, got {len(values)}")
    if any(not value > 0 for value in values):
        raise ValueError(f"must be > 0, got {', '.join(map(str, values))}")
    if len(set(values)) < len(values):
        raise ValueError(f"must differ from each other, got {', '.join(map(str, values))}")
    return values


def _field(setting: Setting) -> tuple[Any, Any]:
    """The type and the field of a setting of the registry."""
    kind: Any = setting.kind
    annotation = bool if kind is bool else Annotated[tuple[kind, ...], AS_LIST, AfterValidator(_resolutions)]
    extra: dict[str, Any] = {"flag": setting.flag, "sweep": list(setting.sweep)}
    return annotation, Field(setting.default, description=setting.help, json_schema_extra=extra)


if TYPE_CHECKING:
    EstimatorSettings = Sampling
else:  # the fields are those of the registry, so a new estimator is in the configuration and in the command
    EstimatorSettings = create_model(
        "EstimatorSettings", __base__=Sampling, **{setting.name: _field(setting) for setting in settings()}
    )


class MeasuringConfig(EstimatorSettings):
    """What is measured at the marked epochs, on how many of the training images (all by default)."""

    merge_epochs: Literal["all", "thirds"] = Field(
        "all",  # as in configurations of before, which do not say it
        description="Marked epochs at which merges are probed: {choices}; thirds: the last, one at a third of it, and so on.",
    )
    clusters: int = Field(CLUSTERS, ge=2, le=100_000, description="K of the K-means labels.")
    cluster_initialisations: int = Field(INITIALISATIONS, ge=1, le=1000, description="Initialisations of K-means.")
    blocks: int = Field(BLOCKS, ge=1, le=64, description="Blocks a side of the coarsened masks.")
    block_threshold: int | None = Field(None, ge=0, le=2**31, description="Pixels above which a block is 1.")
    memory_budget: Annotated[int | None, BYTES] = Field(
        None, gt=0, le=2**50, description="Memory for measuring, such as 2GiB [default: a quarter of what is free]."
    )


class RunConfig(Section):
    """Everything that decides the numbers of a run. With as many threads, numbers are reproduced bit for bit.

    preset: the configuration that it began as; the command's own `--preset` chooses it.
    """

    preset: str = Field("quick", json_schema_extra={"flag": ""})
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of weights and batches.")
    threads: int | None = Field(None, ge=1, le=512, description="CPU threads.")
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    training: TrainingConfig = TrainingConfig()
    measuring: MeasuringConfig = MeasuringConfig()


def preset_config(
    preset: str, overrides: Mapping[str, Any], words: Mapping[str, str] = MappingProxyType({})
) -> RunConfig:
    """A preset with some values replaced; overrides are named `section.value`, or `seed` and `threads`.

    words: what an error calls a value, by its name, if that is not its name.
    Raises: InvalidArgument for an unknown preset or a value outside its domain, naming both.

    >>> preset_config("quick", {"training.epochs": 2, "seed": 1}).training.epochs
    2
    >>> preset_config("quick", {"measuring.noise_variances": [0.0]})
    Traceback (most recent call last):
    unetscope.base.errors.InvalidArgument: noise_variances: must be > 0, got 0.0
    """
    if preset not in PRESETS:
        raise InvalidArgument(f"preset {preset!r}: expected one of {', '.join(PRESETS)}")
    return overridden_config({"preset": preset, **PRESETS[preset]}, overrides, words)


def overridden_config(
    values: Mapping[str, Any], overrides: Mapping[str, Any], words: Mapping[str, str] = MappingProxyType({})
) -> RunConfig:
    """A configuration from plain values with some of them replaced; names, words and errors as in `preset_config`."""
    changed = {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    for name, value in overrides.items():
        section, _, field = name.rpartition(".")
        (changed[section] if section else changed)[field] = value
    return validated_config(changed, words)


def validated_config(values: Mapping[str, Any], words: Mapping[str, str] = MappingProxyType({})) -> RunConfig:
    """A configuration from plain values, such as those of a run folder's `config.json`. words: as of `preset_config`.

    Raises: InvalidArgument that names the first value outside its domain.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = spelled(part for part in first["loc"] if not isinstance(part, int))
        place = words.get(name, name.rpartition(".")[2] if first["type"] == "value_error" else name)
        raise InvalidArgument(f"{place}: {_expectation(first['msg'], first['input'])}") from None


def _expectation(message: str, value: object) -> str:
    """Pydantic's message as an error text of this package: the expected and the actual value."""
    if message.startswith("Value error, "):
        return message.removeprefix("Value error, ")
    shown = repr(value)
    return f"{message[0].lower()}{message[1:]}, got {shown if len(shown) <= 60 else f'{shown[:57]}...'}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested configurations, one `name: old → new` each.

    >>> differences({"seed": 0, "network": {"width": 8}}, {"seed": 0, "network": {"width": 16}})
    ['network.width: 8 → 16']
    """
    changed = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            changed.append(f"{prefix}{name}: {before} → {after}")
    return changed
