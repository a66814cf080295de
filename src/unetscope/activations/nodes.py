"""The nodes of a graph while it is recorded: which number a tensor has, as its memory is when a call reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unetscope.activations.graph import FOREIGN, WRITTEN, Node, UnknownOrigin
from unetscope.activations.origins import Origins, Part, memory_of


@dataclass
class Nodes:
    """The nodes so far, and the numbers of tensors.

    parameters: the names of the network's parameters, by identity. held: the identities of all tensors that its modules hold.
    """

    parameters: Mapping[int, str]
    held: Collection[int]
    nodes: list[Node] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)  # kept alive, so that no identity is used twice
    numbers: dict[int, int] = field(default_factory=dict)  # by identity, the number of a tensor
    owners: dict[int, int] = field(default_factory=dict)  # by memory, the number of its first tensor
    origins: Origins = field(default_factory=Origins)  # of the values at each place of a memory
    made_from_input: set[int] = field(default_factory=set)  # numbers
    unreturned: set[int] = field(default_factory=set)  # numbers of tensors that no call returns
    entered: dict[int, Tensor] = field(default_factory=dict)  # by identity, tensors that came from nowhere
    left: list[tuple[str, int]] = field(default_factory=list)  # calls that gave values away, and the numbers of these
    unknown: dict[int, UnknownOrigin] = field(default_factory=dict)  # by identity

    def add(
        self,
        tensor: Tensor,
        address: str,
        name: str,
        inputs: Sequence[tuple[int, int]],
        arguments: Sequence[Tensor] = (),
        **fields: Any,
    ) -> int:
        """Add a node. inputs: each as (position among the arguments, number)."""
        number = len(self.nodes)
        self.nodes.append(
            Node(
                number,
                address,
                name,
                inputs=tuple(source for _, source in inputs),
                positions=tuple(position for position, _ in inputs),
                arguments=tuple(tuple(argument.shape) for argument in arguments),
                weights=tuple(
                    self.parameters[id(argument)] for argument in arguments if id(argument) in self.parameters
                ),
                shape=tuple(tensor.shape),
                dtype=tensor.dtype,
                **fields,
            )
        )
        if name == "input" or any(source in self.made_from_input for _, source in inputs):
            self.made_from_input.add(number)
        self.tensors.append(tensor)
        self.numbers[id(tensor)] = number
        if (memory := memory_of(tensor)) is not None:
            self.owners.setdefault(memory, number)
        return number

    # What a tensor is.

    def inputs(self, arguments: Sequence[Tensor], address: str, overwritten: Any = None) -> list[tuple[int, int]]:
        """The tensors of known origin among the arguments of a call, each as (position, number).

        overwritten: an index into the first of them, where the call leaves nothing of what stands there.
        """
        numbers = (
            (position, self.number(tensor, address, position, None if position else overwritten))
            for position, tensor in enumerate(arguments)
        )
        return [(position, number) for position, number in numbers if number is not None]

    def number(self, tensor: Tensor, address: str, position: int, overwritten: Any = None) -> int | None:
        """The number of an argument of a call, as its memory is now; None for a parameter or a constant.

        overwritten: an index into it, where the call leaves nothing of what stands there.
        """
        number = self.numbers.get(id(tensor))
        if number is None:
            if id(tensor) in self.parameters:
                return None
            number = self._number_of_unseen(tensor, address, position)
        if number is None or (self.origins.newest(tensor) <= number and overwritten is None):
            return number
        parts = self.origins.parts(tensor, outside=overwritten)
        if overwritten is not None and not parts:
            return None
        if all(part.maker <= number for part in parts):
            return number
        return self._number_as_written(tensor, number, parts, address)

    def _number_as_written(self, tensor: Tensor, number: int, parts: Sequence[Part], address: str) -> int:
        """The number of a tensor that was written into since it was made, for what stands in it now."""
        sources = {part.source for part in parts}
        later = [part.maker for part in parts if part.maker > number]
        covering = [k for k, maker in enumerate(later) if self.origins.covers(self.tensors[maker], tensor)]
        if len(sources) == 1:
            numbers = [source for source in sources if source is not None]
        elif covering:
            numbers = later[covering[-1] :]
        else:
            numbers = [*(number for part in parts[:1] if part.maker <= number), *later]
        numbers = list(dict.fromkeys(numbers))
        if len(numbers) == 1 and self.nodes[numbers[0]].shape == tuple(tensor.shape):
            return numbers[0]
        number = self.add(
            tensor, address, WRITTEN, list(enumerate(numbers)), [self.tensors[source] for source in numbers]
        )
        self.unreturned.add(number)
        return number

    def _number_of_unseen(self, tensor: Tensor, address: str, position: int) -> int | None:
        """The number of a tensor that no recorded call made: a view of a known one, or one that came in from outside."""
        memory = memory_of(tensor)
        if memory in self.owners:
            owner = self.owners[memory]
            number = self.add(tensor, address, "view", [(0, owner)], [self.tensors[owner]], is_view=True)
        elif id(tensor) in self.entered or (self.left and id(tensor) not in self.held):
            alike = [leaving for leaving in self.left if self.nodes[leaving[1]].shape == tuple(tensor.shape)]
            left = dict(alike[-1:] or self.left)
            self.unknown[id(tensor)] = UnknownOrigin(address, position, tuple(tensor.shape), tuple(left))
            sources = list(dict.fromkeys(left.values()))
            number = self.add(tensor, address, FOREIGN, list(enumerate(sources)), [self.tensors[n] for n in sources])
        else:
            return None  # a constant that is not made in the pass
        self.unreturned.add(number)
        return number

    def viewed(
        self, view: Tensor, inputs: Sequence[tuple[int, int]], arguments: Sequence[Tensor]
    ) -> Sequence[tuple[int, int]]:
        """What a view is made from: of a tensor in parts, the one part that it covers, if it is one.

        What a concatenation of several streams joined stays joined in its views.
        """
        memory, covered = memory_of(view), self.origins.parts(view)
        sources = {part.source for part in covered}
        argument = next((k for k, tensor in enumerate(arguments) if memory_of(tensor) == memory), None)
        if argument is None or len(sources) != 1:
            return inputs
        whole = self.origins.parts(arguments[argument])
        streams = {part.source for part in whole} & self.made_from_input
        is_joined = len(streams) > 1 and len({part.maker for part in whole}) == 1 and sources <= streams
        if (number := dict(inputs).get(argument)) is None or is_joined:
            return inputs
        node = self.nodes[number]
        if {part.source for part in whole} == sources and (
            node.is_view or number in sources or sources.issuperset(node.inputs)
        ):
            return inputs
        return [(argument, source) for source in sources if source is not None]
