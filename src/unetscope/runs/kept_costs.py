"""RUN/costs.json: what the designs of a run's network cost, measured once and then read without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from unetscope.runs.description import read_costs, write_object
from unetscope.runs.folder import RunFolder
from unetscope.table import Cost, Savings, Variant

FILE = "costs.json"
MEMORY = (
    "of tensors up to their last use"  # how that of these costs is measured; earlier versions counted names in Python
)


@dataclass(frozen=True)
class KeptCosts:
    """What designs cost, for one image of a shape: (channels, *sides).

    designs: what each sets in the network's configuration, with the costs of the whole network and its own, timed in turns.
    """

    shape: tuple[int, ...] = ()
    designs: tuple[tuple[dict[str, Any], Savings], ...] = ()

    def of(self, design: Variant) -> Savings | None:
        """The costs of a design, None if they have not been measured."""
        network = _plain(design)
        return next((saved for described, saved in self.designs if described == network), None)

    @property
    def whole(self) -> Cost | None:
        """The cost of the whole network, None if nothing has been measured."""
        return next((saved.whole for _, saved in self.designs), None)

    def with_costs(self, shape: tuple[int, ...], design: Variant, saved: Savings) -> KeptCosts:
        """These costs and those of a design, in place of earlier ones; of images of another shape, those alone."""
        network = _plain(design)
        kept = [pair for pair in self.designs if pair[0] != network] if shape == self.shape else []
        return KeptCosts(shape, (*kept, (network, saved)))


def kept_costs(run: RunFolder) -> KeptCosts:
    """The costs that a run folder keeps; none of a run of an earlier version, which measured memory in another way.

    Raises: RunFolderError for a file that is damaged.
    """
    path = run.path / FILE
    if not path.is_file():
        return KeptCosts()
    values = read_costs(path)
    if values["memory"] != MEMORY:
        return KeptCosts()
    return KeptCosts(tuple(values["shape"]), tuple(_pairs(values["designs"])))


def write_costs(run: RunFolder, kept: KeptCosts) -> None:
    """Keep costs with a run, in place of those that it has."""
    designs = [{"network": network, **saved.as_dict()} for network, saved in kept.designs]
    write_object(run.path / FILE, {"memory": MEMORY, "shape": list(kept.shape), "designs": designs})


def _pairs(designs: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Savings]]:
    for each in designs:
        whole, slim = (Cost(**{field.name: each[of][field.name] for field in fields(Cost)}) for of in ("whole", "slim"))
        yield each["network"], Savings(whole, slim)


def _plain(design: Variant) -> dict[str, Any]:
    """What a design sets in the network's configuration, as JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in design.network.items()}
