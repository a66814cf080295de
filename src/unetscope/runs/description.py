"""RUN/config.json and the other JSON files of a run, written with a digest and validated when they are read.

A run folder may be of a stranger, so every value that a verb uses has its type and its bounds checked here, once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from unetscope.base import (
    InvalidArgument,
    RunFolderError,
    in_one_line,
    read_json,
    shown,
    spelled,
    whole_file,
    with_digest,
    without_digest,
)
from unetscope.table import Part

if TYPE_CHECKING:
    from unetscope.training import RunConfig

Text = Annotated[str, Field(max_length=100_000)]
Model = TypeVar("Model", bound=BaseModel)
Count = Annotated[int, Field(ge=0, lt=2**53)]
OWN_LOOP = "own loop"  # a fact: how variants of a run in a loop of the user's own are trained


class _Section(BaseModel):
    """Facts; what is not named here is shown and never computed with."""

    model_config = ConfigDict(extra="allow", strict=True)


class Structures(_Section):
    """Of masks, or why they are not told; the names are those of `planned.structure_facts`."""

    size: Annotated[float, Field(ge=0, le=1e6)] | None = None
    contrast: Annotated[float, Field(gt=0, le=1)] | None = None
    separable_share: Annotated[float | None, Field(ge=0, le=1, alias="separable share")] = None
    undefined: Text | None = None

    @model_validator(mode="after")
    def _refuse_half(self) -> Self:
        if self.undefined is None and None in (self.size, self.contrast, self.separable_share):
            raise ValueError("expected size, contrast and separable share, or undefined")
        return self


class DataFacts(_Section):
    """About one part of the data; the names are those of `folder.data_facts`."""

    source: Text = ""
    images: Count | None = None
    channels: Annotated[int, Field(ge=1, le=4096)] | None = None
    image_size: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(max_length=3, alias="image size")] = []
    foreground_share: Annotated[float | None, Field(ge=0, le=1, alias="foreground share")] = None
    fingerprint: Text = ""
    groups: list[Count] = []
    structures: Structures | None = None
    classes: Annotated[int, Field(ge=2, le=65536)] = 2
    class_shares: Annotated[list[Annotated[float, Field(ge=0, le=1)]] | None, Field(alias="class shares")] = None
    ignored: Annotated[int | None, Field(ge=0, le=65535)] = None

    @model_validator(mode="after")
    def _refuse_other_shares(self) -> Self:
        if self.class_shares is not None and len(self.class_shares) != self.classes:
            raise ValueError(f"{len(self.class_shares)} class shares of {self.classes} classes")
        return self


class LoopNetwork(_Section):
    """Of the network that a loop of the user's own trains."""

    fingerprint: Text = ""
    skips: Annotated[list[Annotated[str, Field(pattern=r"^skip[1-9]\d{0,3}[a-z]{0,4}$")]], Field(max_length=1000)] = []


class LoopConfig(_Section):
    """How variants of a run in a loop of its own are built and trained; the rest is validated where it is used."""

    class Network(_Section):
        """The names of the user's functions."""

        code: Text
        trained_by: Text | None = None
        arguments: list[Text] = []

    network: Network


class Move(_Section):
    """That a run went on on another machine, from an epoch on."""

    epoch: Annotated[int, Field(ge=0)]
    changed: list[Text]


class Facts(_Section):
    """What was written when a run began."""

    versions: dict[Text, Text] = {}
    device: Text = ""
    data: dict[Text, DataFacts] = {}
    warnings: list[Text] = []
    moves: Annotated[list[Move], Field(max_length=1000)] = []
    entropies: Annotated[dict[Text, Annotated[float, Field(ge=0, le=64)]], Field(alias="H(Y) bits")] = {}
    network: dict[Text, Text] = {}
    own_loop: Annotated[LoopConfig, Field(alias=OWN_LOOP)] = Field(default=None)  # type: ignore[assignment]
    loop_network: Annotated[LoopNetwork, Field(alias="own loop network")] = Field(default=None)  # type: ignore[assignment]
    consent: Annotated[Text, Field(alias="code signature")] = ""
    measured_by: Annotated[dict[Text, list[Text]], Field(alias="measured by")] = {}

    @model_validator(mode="after")
    def _refuse_other_classes(self) -> Self:
        if len({self.data[part].classes for part in ("train", "validation") if part in self.data}) > 1:
            raise ValueError("the train and the validation images have different classes")
        return self


class _Ending(_Section):
    constant: Annotated[dict[Text, Annotated[float, Field(ge=0, le=1)]], Field(alias="constant channels")] = {}


class _Cost(_Section):
    parameters: Count
    multiply_adds: Count
    activation_bytes: Count
    seconds: Annotated[float, Field(ge=0, lt=1e9)]
    training_bytes: Count


class _DesignCost(_Section):
    network: dict[Text, Any]
    whole: _Cost
    slim: _Cost


class _Costs(_Section):
    memory: Text = ""  # how it was measured; earlier versions did not say
    shape: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=2, max_length=4)]
    designs: Annotated[list[_DesignCost], Field(max_length=10_000)]


Dice = Annotated[float, Field(ge=-1, le=1)]
Parts = Annotated[list[Annotated[Text, AfterValidator(lambda name: str(Part.named(name)))]], Field(max_length=1000)]


class _Design(_Section):
    name: Text
    depth: Annotated[int, Field(ge=1, le=1000)]
    without: Parts


class _Loss(_Section):
    value: Dice
    low: Dice | None
    high: Dice | None


class _TrainedOn(_Section):
    design: _Design
    dice: Dice
    loss: _Loss
    silenced: Dice
    from_run: Dice | None = None  # earlier versions kept neither
    images: Count | None = None


class _SilencedLoss(_Section):
    epoch: Count
    design: _Design
    loss: Dice


class _SilencedLosses(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    silenced: Annotated[list[_SilencedLoss], Field(max_length=100_000)]


class _Evidence(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    epoch: Count
    epochs: Count
    dice: Dice
    tried: Annotated[list[_TrainedOn], Field(max_length=1000)]
    designs: Count
    depth: Annotated[int, Field(ge=1, le=1000)]
    without: Parts
    alone: Annotated[list[_TrainedOn], Field(max_length=1000)] = []


class _SeedPlan(_Section):
    compared: Annotated[list[Annotated[list[Count], Field(max_length=10_000)]], Field(max_length=10_000)] = []
    auto: bool = False


def write_object(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest."""
    with whole_file(path) as beside:
        beside.write_text(json.dumps(with_digest(values), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_description(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and the facts of a run, from its config.json.

    Raises: RunFolderError that names the file and the value that is not what it has to be.
    """
    values = {"facts": {}, **_object(path, _read(path))}  # a run of a loop of one's own need not state any
    for part in ("configuration", "facts"):
        if not isinstance(values.get(part), dict):
            raise RunFolderError(f"{path} cannot be read: expected a JSON object with {part!r}")
    configuration, facts = values["configuration"], values["facts"]
    for section in ("network", "training"):
        if not isinstance(configuration.get(section, {}), dict):
            raise RunFolderError(
                f"{path}: configuration.{section} is {shown(configuration[section])}: expected an object"
            )
    checked_facts = _validated(path, "facts", Facts, facts)
    if is_trained_here(configuration):
        config = _config(f"{path}", configuration)
        _refuse_other_images(path, config, checked_facts)
        configuration = config.model_dump(mode="json")
    elif OWN_LOOP in facts:
        of_variants = _config(f"{path}: facts.{OWN_LOOP}", facts[OWN_LOOP])
        facts = {**facts, OWN_LOOP: of_variants.model_dump(mode="json")}
    return configuration, facts


def _config(where: str, values: Mapping[str, Any]) -> RunConfig:
    """The configuration of values. Raises: RunFolderError that begins with where they stand."""
    from unetscope.training import validated_config  # its fields are those of the estimators registered by then

    try:
        return validated_config(_with_known_estimators(values))
    except InvalidArgument as wrong:
        raise RunFolderError(f"{where}: {in_one_line(wrong)}") from None


def _with_known_estimators(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the settings of estimators that are not registered here: what they measured is still read."""
    from unetscope.training import MeasuringConfig

    measuring = configuration.get("measuring")
    if not isinstance(measuring, dict):
        return dict(configuration)
    known = {name: value for name, value in measuring.items() if name in MeasuringConfig.model_fields}
    return {**configuration, "measuring": known}


def is_trained_here(configuration: Mapping[str, Any]) -> bool:
    """Whether a run's configuration is one of `unetscope run`, and not of a loop of the user's own."""
    return "depth" in configuration.get("network", {})


def read_ending(path: Path) -> dict[str, Any]:
    """The findings at the end of a training. Raises as `read_description`."""
    values = _object(path, _read(path))
    _validated(path, "", _Ending, values)
    return values


def read_seed_plans(path: Path) -> dict[str, dict[str, Any]]:
    """By variant, the seeds at which it was compared, and whether they were added as needed. Raises as `read_description`."""
    values = _object(path, _read(path))
    for variant, plan in values.items():
        _validated(path, variant, _SeedPlan, plan)
    return values


def read_costs(path: Path) -> dict[str, Any]:
    """What designs of a run's network cost, for images of a shape. Raises as `read_description`."""
    return _validated(path, "", _Costs, _object(path, _read(path))).model_dump()


def read_evidence(path: Path) -> dict[str, Any]:
    """What smaller networks showed of a run. Raises as `read_description`."""
    return _validated(path, "", _Evidence, _object(path, _read(path))).model_dump()


def read_silenced(path: Path) -> dict[str, Any]:
    """What a run's network loses at once without some of its parts. Raises as `read_description`."""
    return _validated(path, "", _SilencedLosses, _object(path, _read(path))).model_dump()


def read_failure(path: Path) -> str:
    """Why a training failed. Raises as `read_description`."""
    values = _read(path)
    reason = (
        values if isinstance(values, str) else _object(path, values).get("reason")
    )  # older versions wrote the text alone
    if not isinstance(reason, str):
        raise RunFolderError(f"{path} cannot be read: expected a reason, got {shown(reason)}")
    return reason


def _refuse_other_images(path: Path, config: RunConfig, facts: Facts) -> None:
    """Images have the size that the configuration asks for; synthetic ones are made, not read, so their number has to be that
    of the images which the run began with."""
    parts = [facts.data[part] for part in ("train", "validation") if part in facts.data]
    for images in parts:
        if images.image_size and tuple(images.image_size) != config.data.sides:
            sides, asked = ("x".join(map(str, size)) for size in (images.image_size, config.data.sides))
            raise RunFolderError(f"{path}: data.image_size is {asked}, and the run began with images of {sides}")
    counts = [images.images for images in parts if images.images is not None]
    if config.data.path is None and len(counts) == 2 and sum(counts) != config.data.synthetic_images:
        raise RunFolderError(
            f"{path}: data.synthetic_images is {config.data.synthetic_images}, and the run began with {sum(counts)} images"
        )


def _validated(path: Path, place: str, model: type[Model], values: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        where = spelled(filter(None, [place, *map(str, first["loc"])]))
        message = first["msg"].removeprefix("Value error, ")
        what = f"{message[0].lower()}{message[1:]}"
        raise RunFolderError(f"{path}: {where}: {what}, got {shown(first['input'])}") from None


def _object(path: Path, values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise RunFolderError(f"{path} cannot be read: expected a JSON object")
    try:
        return without_digest(values)
    except ValueError as damage:
        raise RunFolderError(f"{path} cannot be read: {damage}") from None


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as damage:
        raise RunFolderError(f"{path} cannot be read: {damage}") from None
