"""Which weights several calls of a program read, so that none of them can be cut for one call alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import fx, nn

Readers = Counter[int]


def weight_readers(graph: fx.Graph, network: nn.Module) -> Readers:
    """How many calls of a program read each module, parameter and buffer of its network, by their identities."""
    return Counter(identity for node in graph.nodes for identity in _read_by(node, network))


def shares_weights(node: fx.Node, network: nn.Module, readers: Readers) -> bool:
    """Whether a call is of a module that is called again, or of which another call reads a weight: a tied one, or a function
    that is given it.
    """
    return any(readers[identity] > 1 for identity in set(_read_by(node, network)))


def _read_by(node: fx.Node, network: nn.Module) -> Iterator[int]:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        yield from {id(module), *map(id, module.parameters()), *map(id, module.buffers())}
    elif node.op == "get_attr":
        place, _, name = str(node.target).rpartition(".")
        yield id(getattr(network.get_submodule(place), name))
