"""Streams of layers to streams with the merges among them: what a merge is made of waits until it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from unetscope.table import Layer

Value = TypeVar("Value")


class Merging(Generic[Value]):
    """Values of layers come in, and go out again with those of the merges that they complete.

    join: makes the value of a merge from those of its parts. keep: what is held of a value while it waits. Once all merges are
    complete, the next value begins a new round, as the next batch of images does.

    >>> layers = Layer("1", "a"), Layer("2", "b"), Layer("3", "cat", role="merge", parts=("2", "1"))
    >>> merging = Merging(layers, join="".join)
    >>> [value for label in "12" for value in merging.add(label, f"<{label}>")]
    [('1', '<1>'), ('2', '<2>'), ('3', '<2><1>')]
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        join: Callable[[Sequence[Value]], Value],
        keep: Callable[[Value], Value] = lambda value: value,
    ) -> None:
        self._merges = {layer.label: layer.parts for layer in layers if layer.parts}
        self._incomplete = dict(self._merges)
        self._waiting: dict[str, Value] = {}
        self._join, self._keep = join, keep

    def add(self, label: str, value: Value) -> Iterator[tuple[str, Value]]:
        """What is complete now: this layer, and merges of it with those that waited."""
        yield label, value
        if not any(label in parts for parts in self._incomplete.values()):
            return
        self._waiting[label] = self._keep(value)
        ready = [
            merge for merge, parts in self._incomplete.items() if label in parts and self._waiting.keys() >= set(parts)
        ]
        for merge in ready:
            whole = self._join([self._waiting[part] for part in self._incomplete.pop(merge)])
            # a part is let go as soon as no merge needs it any more: values may be matrices of all images
            awaited = {part for parts in self._incomplete.values() for part in parts}
            self._waiting = {part: kept for part, kept in self._waiting.items() if part in awaited}
            yield from self.add(merge, whole)
        if not self._incomplete:
            self._incomplete = dict(self._merges)
