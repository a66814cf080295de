"""The layout of nnU-Net and of the Medical Segmentation Decathlon: what `dataset.json` says, and which files are a case."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetscope.base import DataError, printable

MAX_JSON_BYTES = 16 * 2**20
LARGEST_LABEL = 254
IGNORE, LARGEST_IGNORED = "ignore", 65535  # the label of voxels without one
_ENDING = re.compile(r"\.[A-Za-z0-9]+(\.[A-Za-z0-9]+)*")
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)


@dataclass(frozen=True)
class Description:
    """What `dataset.json` says.

    channels: their numbers. classes: of the masks. ignore: the label of voxels without one. cases: how many it claims, if it
    does.
    """

    channels: tuple[int, ...]
    classes: int
    ending: str
    cases: int | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class Case:
    """One image and its mask. images: a file a channel, or one file with all channels."""

    name: str
    images: tuple[Path, ...]
    mask: Path


def read_description(folder: Path) -> Description:
    """What the `dataset.json` of a folder says; labels and channels may be named by number or numbered by name.

    Raises: DataError that names the file, what it holds and what is expected.
    """
    path = folder / "dataset.json"
    if not path.is_file():
        raise DataError(f"{printable(str(folder))} has no dataset.json: is it a data set of nnU-Net?")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{printable(str(path))} is larger than {MAX_JSON_BYTES} bytes")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{printable(str(path))} cannot be read: {printable(_reason(error))}") from None
    where = printable(str(path))
    if not isinstance(values, dict):
        raise DataError(f"{where} holds {_shown(values)}: expected an object with labels and channel_names")
    classes, ignore = _classes(where, values.get("labels"))
    names = values.get("channel_names", values.get("modality", {"0": ""}))
    names = dict(enumerate(names)) if isinstance(names, list) else names
    channels = _numbers(where, "channel_names", names, '{"0": "CT"}')
    ending = values.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not _ENDING.fullmatch(ending):
        raise DataError(f"{where}: file_ending is {_shown(ending)}, expected an ending such as .nii.gz")
    claimed = values.get("numTraining")
    cases = claimed if type(claimed) is int and claimed > 0 else None
    return Description(tuple(sorted(channels)), classes, ending, cases, ignore)


def _classes(where: str, labels: Any) -> tuple[int, int | None]:
    """How many classes the labels name, and the number of the label called `ignore`."""
    if isinstance(labels, Mapping):
        for name, value in labels.items():
            if isinstance(value, list) and len(value) != 1:
                raise DataError(
                    f"{where}: label {printable(str(name))} joins {_shown(value)} into a region, and regions overlap, which is "
                    "not measured: name each number once"
                )
    ignore, named = _ignored(where, labels)
    numbers = _numbers(where, "labels", named, '{"background": 0, "tumour": 1}')
    classes = max(2, max(numbers) + 1)
    if ignore is not None and ignore < classes:
        raise DataError(f"{where}: label ignore is {ignore}, expected the largest number of all, as nnU-Net has it")
    return classes, ignore


def _ignored(where: str, labels: Any) -> tuple[int | None, Any]:
    """The number of the label called `ignore`, whichever way round labels are written, and the other labels."""
    if not isinstance(labels, Mapping):
        return None, labels
    pairs = [(name, value[0] if isinstance(value, list) else value) for name, value in labels.items()]
    numbers = [value if name == IGNORE else name for name, value in pairs if IGNORE in (name, value)]
    if not numbers:
        return None, labels
    if not _is_number(numbers[0], LARGEST_IGNORED):
        raise DataError(
            f"{where}: label ignore is {_shown(numbers[0])}, expected a whole number up to {LARGEST_IGNORED}"
        )
    return int(numbers[0]), {name: value for name, value in pairs if IGNORE not in (name, value)}


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _shown(value: Any) -> str:
    """A value of a JSON file on one short line."""
    text = printable(json.dumps(value, ensure_ascii=True, default=str))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _numbers(where: str, name: str, values: Any, expected: str) -> set[int]:
    """The numbers that an object gives to names, or that name its values."""
    if not isinstance(values, Mapping) or not values:
        raise DataError(f"{where}: {name} is {_shown(values)}, expected an object such as {expected}")
    for candidates in (values.values(), values.keys()):
        flat = [number for value in candidates for number in (value if isinstance(value, list) else [value])]
        if flat and all(map(_is_number, flat)):
            return {int(number) for number in flat}
    raise DataError(
        f"{where}: {name} is {_shown(values)}, expected whole numbers from 0 to {LARGEST_LABEL} with their names, such as "
        f"{expected}"
    )


def _is_number(value: Any, largest: int = LARGEST_LABEL) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isdigit() and len(value) <= len(str(largest)) and int(value) <= largest
    return type(value) is int and 0 <= value <= largest


def find_cases(folder: Path, part: str, description: Description) -> list[Case]:
    """Every case of a part, each image paired with its mask and each mask with its image.

    Files are named CASE_0000.nii.gz, a channel each, or CASE.nii.gz with the channels last (Decathlon), in upper or lower case.
    One file with several channels, such as a colour PNG, may stand for all of them.
    Raises: DataError that names a file without its counterpart, or two that are one case.
    """
    ending = description.ending
    masks = _by_name(folder / f"labels{part}", ending)
    if not masks:
        raise DataError(
            f"{printable(str(folder))} has no *{ending} in labels{part}: {_why_none(folder / f'labels{part}', ending)}"
        )
    files = _by_name(folder / f"images{part}", ending)
    of_case: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        channel = _CHANNEL.fullmatch(name) if name not in masks else None
        case, number = (channel["case"], int(channel["channel"])) if channel else (name, description.channels[0])
        of_case.setdefault(case, {})[number] = path
    _refuse_unpaired(folder, part, of_case, masks, ending)
    return [Case(name, _channel_files(name, of_case[name], description), masks[name]) for name in sorted(masks)]


def _why_none(folder: Path, ending: str) -> str:
    """What is there instead of files with an ending, and what to do."""
    files = _sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else ()
    if not files:
        return "is it a data set of nnU-Net?"
    return f"it has {printable(files[0].name)}; give the ending of its files in dataset.json, file_ending, which says {ending}"


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    """The files of a folder with an ending, by name without it; files that a system or an archiver added are left aside."""
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or not path.name.lower().endswith(ending.lower()) or not path.is_file():
            continue
        name = unicodedata.normalize("NFC", path.name[: -len(ending)])
        if name in paths:
            raise DataError(f"{printable(str(path))} and {printable(paths[name].name)} are one case: keep one of them")
        paths[name] = path
    return paths


def _refuse_unpaired(folder: Path, part: str, images: Mapping[str, Any], masks: Mapping[str, Any], ending: str) -> None:
    for names, here, there in (
        (images.keys() - masks.keys(), f"images{part}", f"labels{part}"),
        (masks.keys() - images.keys(), f"labels{part}", f"images{part}"),
    ):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            what = "mask" if there.startswith("labels") else "image"
            raise DataError(
                f"{printable(str(folder))}: case {printable(min(names))} of {here} has no {what} *{ending} in {there}{more}: "
                "add what is missing or remove the other"
            )


def _channel_files(name: str, files: Mapping[int, Path], description: Description) -> tuple[Path, ...]:
    """The files of the channels in their order, or the one file that holds all of them."""
    if len(files) == 1 and description.channels[0] in files:
        return (files[description.channels[0]],)
    if missing := sorted(set(description.channels) - files.keys()):
        have = ", ".join(printable(path.name) for path in _sorted(files.values()))
        raise DataError(f"case {printable(name)} has no file of channel {missing[0]:04d}: it has {have}")
    if further := sorted(files.keys() - set(description.channels)):
        raise DataError(
            f"case {printable(name)} has {printable(files[further[0]].name)}, and dataset.json names no channel {further[0]}: "
            "name it or remove the file"
        )
    return tuple(files[channel] for channel in description.channels)


def _sorted(paths: Iterable[Path]) -> Sequence[Path]:
    return sorted(paths)
