"""The flags of the command, derived from the fields of a configuration.

A field defines what its flag shows: `description` is the help text, in which `{choices}` stands for the values of a `Literal`,
and `json_schema_extra` may hold "flag" (the flag, where it is not the field's name; empty for a field without one), "alias" (a
second spelling) and "sweep" (values that `--sweep` adds). A field whose type does not define how a flag spells its value
carries a `Spelling` in its annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from unetscope.base import InvalidArgument

ScheduleName = Literal["log", "paper"]


@dataclass(frozen=True)
class Spelling:
    """How a flag spells a value.

    kind: of the flag's word. parse: from the flag and its word to the value. spell: from the value to the word.
    """

    kind: type
    parse: Callable[[str, Any], Any]
    spell: Callable[[Any], str] = str


@dataclass(frozen=True)
class Flag:
    """A value of a configuration, as a flag of the command.

    name: of the value, with its section, such as `training.epochs`. words: the flag and its aliases. kind: the type of its
    word. many: whether the flag may be repeated. sweep: the values that `--sweep` adds.
    """

    name: str
    words: tuple[str, ...]
    help: str
    kind: type
    many: bool = False
    sweep: tuple[float, ...] = ()
    spelling: Spelling | None = None

    @property
    def negation(self) -> str:
        """The flag that switches off a value that is on or off."""
        return f"--no-{self.words[0].removeprefix('--')}"

    def parse(self, word: Any) -> Any:
        """The value that the flag's word stands for. Raises: InvalidArgument, which names the flag."""
        return self.spelling.parse(self.words[0], word) if self.spelling and word is not None else word

    def spell(self, value: Any) -> list[str]:
        """The words that set a value; none for a value that is not there.

        >>> Flag("training.channels_last", ("--channels-last",), "", bool).spell(False)
        ['--no-channels-last']
        >>> Flag("network.without", ("--without",), "", str, many=True).spell(["skip1", "skip2"])
        ['--without', 'skip1', '--without', 'skip2']
        """
        if value is None:
            return []
        if isinstance(value, bool):
            return [self.words[0] if value else self.negation]
        spell = self.spelling.spell if self.spelling else str
        return [word for item in (value if self.many else [value]) for word in (self.words[0], spell(item))]


def flags_of(model: type[BaseModel], section: str = "") -> Iterator[Flag]:
    """The flags of a configuration and of the sections in it, in the order of its fields.

    >>> class Config(BaseModel):
    ...     batch_size: int = 16
    >>> [(flag.name, flag.words) for flag in flags_of(Config, "training.")]
    [('training.batch_size', ('--batch-size',))]
    """
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from flags_of(field.annotation, f"{section}{name}.")
        elif flag := _flag(f"{section}{name}", field):
            yield flag


def _flag(name: str, field: FieldInfo) -> Flag | None:
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if not (word := extra.get("flag", f"--{name.rpartition('.')[2].replace('_', '-')}")):
        return None
    words = (word, extra["alias"]) if "alias" in extra else (word,)
    spelling = next((item for item in field.metadata if isinstance(item, Spelling)), None)
    kind, many = (spelling.kind, False) if spelling else _kind(field.annotation)
    text = field.description or ""
    if get_origin(field.annotation) is Literal:
        text = text.replace("{choices}", alternatives(get_args(field.annotation)))
    return Flag(name, words, text, kind, many, tuple(extra.get("sweep", ())), spelling)


def alternatives(names: Iterable[object]) -> str:
    """Names as a help text lists them.

    >>> alternatives(["demo", "quick", "paper"])
    'demo, quick or paper'
    """
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}" if most else last


def _kind(annotation: Any) -> tuple[type, bool]:
    """The type of one word of a flag, and whether the flag may be repeated.

    >>> _kind(int | None), _kind(tuple[float, ...]), _kind(Literal["he", "glorot"])
    ((<class 'int'>, False), (<class 'float'>, True), (<class 'str'>, False))
    """
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0], True
    if get_origin(annotation) is Literal:
        return str, False
    choices = [choice for choice in get_args(annotation) if choice is not NoneType]
    return _kind(choices[0]) if choices else (annotation, False)


def parse_path(_: str, path: Path) -> str:
    """An absolute path, so that a run can be resumed from another folder."""
    return str(path.expanduser().resolve())


def parse_code(word_of_flag: str, word: str) -> str:
    """The name of code, its file as an absolute path.

    >>> parse_code("--network", "package.module:Net"), parse_code("--network", "/tmp/nets.py:Net")
    ('package.module:Net', '/tmp/nets.py:Net')
    """
    place, _, name = word.rpartition(":")
    if not place or not name:
        raise InvalidArgument(f"{word_of_flag} {word}: expected FILE.py:NAME or package.module:NAME")
    return f"{Path(place).expanduser().resolve()}:{name}" if place.endswith(".py") else word


def parse_sides(flag: str, text: str) -> int | tuple[int, ...]:
    """One side, or all of them.

    >>> parse_sides("--image-size", "64"), parse_sides("--image-size", "16x64x64")
    (64, (16, 64, 64))
    """
    try:
        sides = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        raise InvalidArgument(
            f"{flag} {text}: expected a number of pixels such as 64, HEIGHTxWIDTH, or DEPTHxHEIGHTxWIDTH for volumes"
        ) from None
    return sides[0] if len(sides) == 1 else sides


def spell_sides(sides: int | Sequence[int]) -> str:
    """The word that `parse_sides` reads."""
    return str(sides) if isinstance(sides, int) else "x".join(map(str, sides))


def parse_groups(_: str, word: str) -> str:
    """A pattern as it is; a table as an absolute path."""
    return parse_path(_, Path(word)) if word.lower().endswith(".csv") else word


def parse_epochs(flag: str, text: str) -> list[int]:
    """Epochs such as `10,100`."""
    try:
        return [int(epoch) for epoch in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"{flag} {text}: expected epochs such as 10,100") from None


def parse_marked(flag: str, text: str) -> str | list[int]:
    """The name of a schedule, or epochs."""
    if text in get_args(ScheduleName):
        return text
    try:
        return parse_epochs(flag, text)
    except InvalidArgument:
        raise InvalidArgument(f"{flag} {text}: expected log, paper, or epochs such as 1,10,100") from None


def spell_marked(marked: str | list[int]) -> str:
    """The word that `parse_marked` reads."""
    return marked if isinstance(marked, str) else ",".join(map(str, marked))


def parse_bytes(flag: str, text: str) -> int:
    """A size such as 2GiB, 500MB or 1000000 as bytes.

    >>> parse_bytes("--memory-budget", "2GiB"), parse_bytes("--memory-budget", "1.5 kB")
    (2147483648, 1500)
    """
    units = {"": 1, "b": 1, **{f"{p}b": 1000**i for i, p in enumerate("kmgt", 1)}}
    units |= {f"{p}ib": 1024**i for i, p in enumerate("kmgt", 1)}
    number = text.strip().lower().rstrip("kmgtib ")
    unit = text.strip().lower()[len(number) :].strip()
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"{flag} {text}: expected a size such as 2GiB or 500MB") from None
    if size <= 0:
        raise InvalidArgument(f"{flag} {text}: less than one byte, expected a size such as 2GiB or 500MB")
    return size


PATH = Spelling(Path, parse_path)
GROUPS = Spelling(str, parse_groups)
CODE = Spelling(str, parse_code)
MARKED = Spelling(str, parse_marked, spell_marked)
SIDES = Spelling(str, parse_sides, spell_sides)
BYTES = Spelling(str, parse_bytes)
