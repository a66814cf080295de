"""What feeds what among the layers of a network, and the way of each skip from the encoder to its merge."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from unetscope.table.records import Layer, Skip

Connection = tuple[str, str]  # the labels of a layer and of one that is made from it


@dataclass(frozen=True, slots=True)
class Connections:
    """The connections between the layers of a network, each as (from, to).

    is_recorded: whether the layers name their sources; if not, `others` joins each layer with the next one in network order,
    which is no statement about data. of_skip: by skip, its connections from the encoder to the merge, the one into the merge
    last. others: all that are no skip's, in network order. joins: layers that are one join, each of the same upsampled path
    with another skip; `others` enter its first layer and leave its last one.
    """

    is_recorded: bool
    of_skip: Mapping[str, tuple[Connection, ...]]
    others: tuple[Connection, ...]
    joins: tuple[tuple[str, ...], ...] = ()

    def origin(self, skip: Skip, layers: Sequence[Layer]) -> str:
        """The first layer in network order that a skip comes from: that of the encoder, if a gate stands at its end."""
        starts = {start for start, _ in self.of_skip[skip.name]}
        return next((layer.label for layer in layers if layer.label in starts), skip.source)


def connections(layers: Sequence[Layer], skips: Iterable[Skip]) -> Connections:
    """The connections between layers, by what each layer names as its sources.

    A skip begins at the last layers of the encoder: its source, or, if that is made after the upsampled path has been (a gate),
    the layers that the source is made from, without those of the deeper path.

    >>> layers = [Layer("1", "a", sources=()), Layer("2", "b", level=1, sources=("1",)), Layer("3up", "u", sources=("2",)),
    ...           Layer("1mul", "gate", sources=("1",)), Layer("3", "cat", sources=("3up", "1mul"))]
    >>> skip = Skip("skip1", source="1mul", upsampled="3up", merge="3")
    >>> joined = connections(layers, [skip])
    >>> joined.of_skip["skip1"], joined.origin(skip, layers)
    ((('1', '1mul'), ('1mul', '3')), '1')
    >>> joined.others
    (('1', '2'), ('2', '3up'), ('3up', '3'))
    """
    skips, labels = tuple(skips), [layer.label for layer in layers]
    if not all(layer.sources is not None and set(layer.sources) <= set(labels) for layer in layers):
        stated = {skip.name: ((skip.source, skip.merge),) for skip in skips}
        return Connections(False, stated, tuple(pairwise(labels)))
    sources = {layer.label: tuple(dict.fromkeys(layer.sources or ())) for layer in layers}
    of_skip = {skip.name: _way(skip, sources) for skip in skips}
    taken = {connection for way in of_skip.values() for connection in way}
    joins = tuple(_joins(layers, sources))
    first = {label: join[0] for join in joins for label in join}
    last = {label: join[-1] for join in joins for label in join}
    every = ((source, label) for label in labels for source in sources[label] if (source, label) not in taken)
    others = dict.fromkeys((last.get(source, source), first.get(label, label)) for source, label in every)
    return Connections(True, of_skip, tuple(others), joins)


def _joins(layers: Sequence[Layer], sources: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """The layers of each join of several skips: side by side, of one upsampled path, and the same is made from all of them."""
    made: dict[str, list[str]] = {label: [] for label in sources}
    for label, before in sources.items():
        for source in before:
            made[source].append(label)

    def join(layer: Layer) -> tuple[object, ...]:
        return (layer.parts[0], *made[layer.label]) if layer.role == "merge" and layer.parts else (layer,)

    for _, beside in groupby(layers, key=join):
        labels = tuple(layer.label for layer in beside)
        if len(labels) > 1:
            yield labels


def _way(skip: Skip, sources: Mapping[str, Sequence[str]]) -> tuple[Connection, ...]:
    """The connections of a skip. sources: by layer, in network order."""
    order = {label: place for place, label in enumerate(sources)}
    before = sources.get(skip.upsampled, ())
    deeper = _descendants({skip.upsampled, *before}, sources)
    turn = max((order[label] for label in before), default=len(order))
    way: dict[Connection, None] = {(skip.source, skip.merge): None}
    pending = [skip.source]
    while pending:
        label = pending.pop()
        if order.get(label, 0) > turn:
            leading = [(source, label) for source in sources[label] if source not in deeper]
            pending += [source for source, end in leading if (source, end) not in way]
            way.update(dict.fromkeys(leading))
    return tuple(reversed(way))


def _descendants(labels: Collection[str], sources: Mapping[str, Sequence[str]]) -> set[str]:
    """These layers and all that are made from them."""
    reached = set(labels)
    for label, before in sources.items():
        if reached.intersection(before):
            reached.add(label)
    return reached
