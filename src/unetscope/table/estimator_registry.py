"""The registry of estimators: what each is called, what its resolution means, and which setting asks for it.

It never imports torch: tables, figures, the page and the command read it. The class that computes an estimate stands in it as a
dotted path, which is imported when the class is first used. A new estimator is its own file and one call of `register` below.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

NOISE = "noise variance"
RELATIVE_NOISE = "noise variance over median squared distance"
PARTS_APART = "and a merge shows each of its parts"

CLUSTERS, INITIALISATIONS, BLOCKS = 64, 10, 4  # of label schemes, unless they are given

Argument = Literal["estimators", "probes", "merge_probes"]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value of `MeasuringConfig` that asks for estimators.

    kind: `float` or `int` for a tuple of resolutions, for each of which every estimator of the setting is built; `bool` for an
    estimator without a resolution. flag: of the command. help: what the flag sets. argument: the parameter of `Scope` that
    takes what is built. sweep: resolutions that `--sweep` adds. by_decades: whether resolutions ten times as large or small
    are worth measuring.
    """

    name: str
    kind: type
    flag: str
    help: str
    default: tuple[float, ...] | bool = ()
    argument: Argument = "estimators"
    sweep: tuple[float, ...] = ()
    by_decades: bool = False

    @property
    def nothing(self) -> tuple[float, ...] | bool:
        """The value that asks for no estimate."""
        return False if self.kind is bool else ()

    def resolutions(self, value: tuple[float, ...] | bool) -> tuple[tuple[float, ...], ...]:
        """The arguments with which an estimator is built, one tuple for each time."""
        if isinstance(value, bool):
            return ((),) * value
        return tuple((resolution,) for resolution in value)


@dataclass(frozen=True, slots=True)
class EstimatorEntry:
    """An estimator, by the facts that need no computation.

    titles: its keys in the table of estimates, each with its name for people. unit: what its resolution is, "" if it has none.
    path: of the class, as `module:name`. settings: which values of the configuration ask for it; keywords: further arguments
    of the class then. shannon: whether it estimates a layer's Shannon information. joins_at_merges: whether estimates of the
    parts of a merge and of the merge may be added and subtracted. why_rising: why an estimate may rise from a layer to one
    computed from it. checks: paths of functions that yield its cases for `unetscope selfcheck`, as of `measure.selfcheck`.
    """

    titles: Mapping[str, str]
    unit: str
    path: str
    settings: tuple[Setting, ...]
    keywords: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    shannon: bool = True
    joins_at_merges: bool = True
    why_rising: str = ""
    checks: tuple[str, ...] = ()

    def build(self, *resolution: float) -> Any:
        """The estimator at a resolution."""
        return imported(self.path)(*resolution, **self.keywords)


def imported(path: str) -> Any:
    """What stands at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


_ENTRIES: list[EstimatorEntry] = []
_UNKNOWN = EstimatorEntry({}, "resolution", "", ())


def register(entry: EstimatorEntry) -> EstimatorEntry:
    """Add an estimator. The configuration and the command have its setting if it is registered before they are imported."""
    _ENTRIES.append(entry)
    return entry


def entries() -> tuple[EstimatorEntry, ...]:
    """All estimators, in the order in which they are measured and shown."""
    return tuple(_ENTRIES)


def entry_of(estimator: str) -> EstimatorEntry:
    """The entry of a key; one without titles for a key of a table that a later or extended version wrote."""
    return next((entry for entry in _ENTRIES if estimator in entry.titles), _UNKNOWN)


def settings() -> tuple[Setting, ...]:
    """The values of the configuration that ask for estimators, in their order there."""
    return tuple(dict.fromkeys(setting for entry in _ENTRIES for setting in entry.settings))


def built(values: Mapping[str, Any], argument: Argument) -> list[Any]:
    """The estimators, or families of probes, that the values of a configuration ask for.

    Estimators that share a setting alternate: all of them at its first resolution, then all of them at the second.
    """
    return list(_built(values, argument))


def _built(values: Mapping[str, Any], argument: Argument) -> Iterator[Any]:
    for setting in settings():
        if setting.argument == argument:
            for resolution in setting.resolutions(values[setting.name]):
                yield from (entry.build(*resolution) for entry in _ENTRIES if setting in entry.settings)


def estimator_title(estimator: str) -> str:
    """An estimator's name for people; the key itself if it is not registered."""
    return entry_of(estimator).titles.get(estimator, estimator)


def resolution_unit(estimator: str) -> str:
    """What the resolution of an estimator is, "" if it has none."""
    return entry_of(estimator).unit


def estimator_text(estimator: str, resolution: float) -> str:
    """An estimator with its resolution, for people.

    >>> estimator_text("kde_upper", 0.1), estimator_text("usable_linear", 0.0)
    ('KDE upper bound, noise variance 0.1', 'linear probes')
    """
    title, unit = estimator_title(estimator), resolution_unit(estimator)
    return f"{title}, {unit} {resolution:g}" if unit else title


def decades(first: int, last: int) -> tuple[float, ...]:
    """Two values a decade, from 10^(first/2) to 10^(last/2), with three digits each.

    >>> decades(-1, 2)
    (0.316, 1.0, 3.16, 10.0)
    """
    return tuple(float(f"{10 ** (power / 2):.3g}") for power in range(first, last + 1))


NOISE_VARIANCES = Setting(
    "noise_variances",
    float,
    "--noise-variance",
    "Noise variance of the KDE; repeatable.",
    default=(1.0,),
    sweep=decades(-6, 8),
    by_decades=True,
)
MIXTURES = Setting(
    "mixtures", float, "--mixture", "Noise variance of the mixture's information; repeatable.", by_decades=True
)
RELATIVE_NOISE_VARIANCES = Setting(
    "relative_noise_variances",
    float,
    "--relative-noise-variance",
    "Noise variance over the layer's median squared distance; repeatable.",
    by_decades=True,
)
BIN_SIZES = Setting(
    "bin_sizes",
    float,
    "--bin-size",
    "Bin size of the binning estimate; repeatable.",
    default=(0.2,),
    sweep=decades(-4, 4),
    by_decades=True,
)
RENYI_BANDWIDTHS = Setting(
    "renyi_bandwidths",
    float,
    "--renyi",
    "Bandwidth of the Rényi index over the layer's median squared distance, such as 0.5; repeatable.",
)
KSG_COMPONENTS = Setting("ksg_components", int, "--ksg", "PCA components of the KSG estimate, 1 to 10; repeatable.")
USABLE = Setting("usable", bool, "--usable", "Usable information by linear probes.", default=True, argument="probes")
MERGE_PROBES = Setting(
    "merge_probes",
    bool,
    "--merge-probes",
    "Convolutional probes of the merges, for verdicts.",
    default=True,
    argument="merge_probes",
)
CONVOLUTIONAL = Setting(
    "convolutional",
    bool,
    "--convolutional",
    "Usable information of every layer by convolutional probes too.",
    default=False,
    argument="probes",
)

KDE_TITLES = {"kde_upper": "KDE upper bound", "kde_lower": "KDE lower bound"}
FIXED_NOISE = f"since the noise is not scaled with the layer {PARTS_APART} through noise of its own"
SCALED_NOISE = f"since the noise is scaled to each layer anew {PARTS_APART} through noise of its own"
CHECKS = "unetscope.measure.selfcheck"

register(
    EstimatorEntry(
        KDE_TITLES,
        NOISE,
        "unetscope.estimators.kde:KDE",
        (NOISE_VARIANCES,),
        why_rising=FIXED_NOISE,
        checks=(f"{CHECKS}:gaussian_channels",),
    )
)
register(
    EstimatorEntry(
        {"mixture": "Gaussian mixture"},
        NOISE,
        "unetscope.estimators.mixture:Mixture",
        (MIXTURES,),
        why_rising=FIXED_NOISE,
        checks=(f"{CHECKS}:gaussian_channels", f"{CHECKS}:tight_clusters"),
    )
)
register(
    EstimatorEntry(
        {f"{key}_relative": title for key, title in KDE_TITLES.items()},
        RELATIVE_NOISE,
        "unetscope.estimators.kde:KDE",
        (RELATIVE_NOISE_VARIANCES,),
        {"relative": True},
        why_rising=SCALED_NOISE,
    )
)
register(
    EstimatorEntry(
        {"mixture_relative": "Gaussian mixture"},
        RELATIVE_NOISE,
        "unetscope.estimators.mixture:Mixture",
        (RELATIVE_NOISE_VARIANCES,),
        {"relative": True},
        why_rising=SCALED_NOISE,
    )
)
register(
    EstimatorEntry(
        {"binning": "binning"},
        "bin size",
        "unetscope.estimators.binning:Binning",
        (BIN_SIZES,),
        why_rising=f"since the bin size is not scaled with the layer {PARTS_APART} in bins of its own",
        checks=(f"{CHECKS}:grid_cells",),
    )
)
register(
    EstimatorEntry(
        {"renyi": "matrix-based Rényi index"},
        "bandwidth over median squared distance",
        "unetscope.estimators.renyi:Renyi",
        (RENYI_BANDWIDTHS,),
        shannon=False,  # an index
        checks=(f"{CHECKS}:tight_clusters",),
    )
)
register(
    EstimatorEntry(
        {"ksg": "KSG on PCA codes"},
        "components",
        "unetscope.estimators.ksg:KSG",
        (KSG_COMPONENTS,),
        shannon=False,  # the information of a code
        joins_at_merges=False,  # the code of a concatenation does not hold the codes of its parts
        checks=(f"{CHECKS}:normal_codes",),
    )
)
register(
    EstimatorEntry(
        {"usable_linear": "linear probes"},
        "",
        "unetscope.estimators.families:Linear",
        (USABLE,),
        shannon=False,
        checks=(f"{CHECKS}:logistic_channel", f"{CHECKS}:merged_bits"),
    )
)
register(
    EstimatorEntry(
        {"usable_convolutional": "convolutional probes"},
        "",
        "unetscope.estimators.families:Convolutional",
        (MERGE_PROBES, CONVOLUTIONAL),
        shannon=False,
    )
)
