"""A configuration as the words of the command: the flags of its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetscope.training.config import RunConfig, preset_config, validated_config
from unetscope.training.flags import Flag, flags_of

UNET_ONLY = ("network.width", "network.depth", "network.initialisation")  # values that no other network has
# Values that mean nothing where images are synthetic.
FILES_ONLY = tuple(f"data.{name}" for name in ("validation", "volumes", "masks", "classes", "ignore", "accept"))
# The order of sections and values in the command; any others come last.
COMMAND_ORDER = ("data", "network", "training", "threads", "seed", "measuring")


def run_flags(model: type[RunConfig]) -> tuple[Flag, ...]:
    """The flags of `unetscope run`: one for every value of its configuration but the preset."""

    def place(flag: Flag) -> int:
        first = flag.name.partition(".")[0]
        return COMMAND_ORDER.index(first) if first in COMMAND_ORDER else len(COMMAND_ORDER)

    return tuple(sorted(flags_of(model), key=place))


def repeat_command(values: Mapping[str, Any]) -> list[str]:
    """The words of the command that repeats a run of this configuration: its preset, and a flag for each other value.

    Raises: InvalidArgument for values that are no configuration.

    >>> config = preset_config("quick", {"training.epochs": 2, "network.without": ["skip1", "skip2"]})
    >>> repeat_command(config.model_dump(mode="json"))
    ['unetscope', 'run', '--preset', 'quick', '--without', 'skip1', '--without', 'skip2', '--epochs', '2']
    """
    config = validated_config(values)
    usual = preset_config(config.preset, {})
    return ["unetscope", "run", "--preset", config.preset, *flag_words(config, usual)]


def flag_words(config: RunConfig, usual: RunConfig | None = None) -> list[str]:
    """The words of the flags that set the values of a configuration, of those that mean something in it.

    usual: a configuration whose values need no flag; without it every value that is there has one.

    >>> usual = preset_config("demo", {})
    >>> flag_words(preset_config("demo", {"training.epochs": 2}), usual), flag_words(usual)[:4]
    (['--epochs', '2'], ['--validation-share', '0.25', '--synthetic-images', '160'])
    """
    values, usual_values = _flat(config), {} if usual is None else _flat(usual)
    meaningless = (UNET_ONLY if config.network.code else ()) + (() if config.data.path else FILES_ONLY)
    return [
        word
        for flag in run_flags(type(config))
        if flag.name not in meaningless and (usual is None or values[flag.name] != usual_values[flag.name])
        for word in flag.spell(values[flag.name])
    ]


def _flat(config: RunConfig) -> dict[str, Any]:
    """The values of a configuration by their names with sections."""
    flat: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return flat
