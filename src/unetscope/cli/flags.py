"""Verbs whose flags are derived from a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from unetscope.training import Flag, parse_code

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it will take.")]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="KDE and binning over seven decades of noise variance and four of bin size.")
]
Track = Annotated[
    str | None,
    typer.Option(
        help="Tracker to give scalars and figures to: tensorboard, mlflow or wandb, in the run folder, offline."
    ),
]
Run = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
Network = Annotated[
    str | None,
    typer.Option(
        help="The code of the run's own network, to let it run if the run was begun elsewhere.", metavar="CODE"
    ),
]
Runs = Annotated[list[Path], typer.Argument(help="One run folder, or several to stand side by side.", metavar="RUN...")]


VALUES = "values"


def as_code(name: str | None, flag: str = "--network") -> str | None:
    """The name of code as a configuration holds it, with the absolute path of its file. flag: that it was given by."""
    return None if name is None else parse_code(flag, name)


def takes(flags: Sequence[Flag], *, negatable: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb one parameter for each flag, in place of its parameter `values`.

    The verb is called with `values` as the values that were set, by their names in the configuration. negatable: whether what
    is on or off has a second flag that switches it off.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(verb, eval_str=True)
        by_parameter = {flag.name.replace(".", "__"): flag for flag in flags}

        @wraps(verb)
        def command(**words: Any) -> None:
            values = {flag.name: flag.parse(words.pop(name)) for name, flag in by_parameter.items()}
            verb(**words, **{VALUES: {name: value for name, value in values.items() if value not in (None, [])}})

        derived = [_parameter(name, flag, negatable) for name, flag in by_parameter.items()]
        parameters: list[inspect.Parameter] = []
        for parameter in own.parameters.values():
            parameters += derived if parameter.name == VALUES else [parameter]
        command.__dict__["__signature__"] = own.replace(parameters=parameters)
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def _parameter(name: str, flag: Flag, negatable: bool) -> inspect.Parameter:
    words = flag.words
    if flag.kind is bool and negatable:
        words = (f"{words[0]}/{flag.negation}", *words[1:])
    kind: Any = list[flag.kind] if flag.many else flag.kind  # type: ignore[name-defined]
    annotation = Annotated[kind | None, typer.Option(*words, help=flag.help)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def with_sweep(values: Mapping[str, Any], flags: Iterable[Flag]) -> dict[str, Any]:
    """The values with those that `--sweep` adds."""
    added = {flag.name: sorted({*values.get(flag.name, ()), *flag.sweep}) for flag in flags if flag.sweep}
    return {**values, **added}
