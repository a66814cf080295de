"""The tensors, sizes and weights of a program while it is recorded, as arguments of its calls."""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_iter

from unetscope.base import NetworkError
from unetscope.networks.traced_sizes import TracedRatio, TracedSize, plain, traced

CONSTANTS = (
    bool, int, float, complex, str, type(None), type(...), torch.dtype, torch.layout, torch.memory_format, enum.Enum,
    torch.Size,
)  # fmt: skip


RANDOM = ("rand", "bernoulli", "normal", "multinomial", "uniform", "rrelu", "exponential", "poisson")
"""How the names of functions begin that draw random numbers."""


def hold(decision: bool, text: str) -> None:
    """Go on only with sizes for which the recorded network decides as it did.

    Raises: NetworkError.
    """
    if not decision:
        raise NetworkError(
            f"this smaller network was recorded for images on which {text}: build it with an example of the new size"
        )


class ProgramTensors:
    """The nodes of a program by the tensors and sizes that they make."""

    def __init__(self, model: nn.Module) -> None:
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.attributes: dict[str, Tensor] = {}
        self.outside: list[str] = []
        self.sizes_escaped = False
        self._names = {id(value): name for name, value in (*model.named_buffers(), *model.named_parameters())}
        self._nodes: dict[int, fx.Node] = {}  # by identity of a tensor
        self._alive: list[Tensor] = []  # so that no identity is used twice
        self._writers: dict[int, list[fx.Node]] = {}  # by storage, what wrote to it in place
        self._inner: list[str] | None = None  # within a module of PyTorch's, the functions that it calls
        self._autocast = torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
        self._attributes_end: fx.Node | None = None

    def _size(self, source: fx.Node, axis: int, value: int) -> Any:
        node = self.graph.call_method("size", (source, axis))
        return traced(value, node, self)

    def computed(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> fx.Node:
        """A computation with sizes."""
        return self.graph.call_function(function, tuple(self._argument(value, "a size") for value in arguments))

    def decided(self, comparison: Callable[..., bool], arguments: tuple[Any, ...], outcome: bool) -> None:
        """A decision by sizes, which the program checks."""
        node = self.computed(comparison, arguments)
        if not outcome:
            node = self.graph.call_function(operator.not_, (node,))
        text = f"{comparison.__name__}({', '.join(str(plain(value)) for value in arguments)}) is {outcome}"
        self.graph.call_function(hold, (node, text))

    def _register(self, tensor: Tensor, node: fx.Node) -> None:
        self._alive.append(tensor)
        self._nodes[id(tensor)] = node
        node.meta.update(shape=tuple(tensor.shape), dtype=tensor.dtype)

    def _register_items(self, result: Any, node: fx.Node, address: str, name: str) -> None:
        items = result.items() if isinstance(result, Mapping) else enumerate(result)
        for key, item in items:
            if isinstance(item, Tensor | list | tuple | Mapping):
                part = self.graph.call_function(operator.getitem, (node, key))
                part.meta.update(node.meta, part=key)
                if isinstance(item, Tensor):
                    self._register(item, part)
                else:
                    self._register_items(item, part, address, name)

    def writers(self, values: Any) -> tuple[fx.Node, ...]:
        """What wrote in place to tensors so far."""
        storages = {storage_of(value) for value in tree_iter(values) if isinstance(value, Tensor)}
        return tuple(node for storage in storages for node in self._writers.get(storage, ()))

    def _node(self, tensor: Tensor) -> fx.Node:
        """The node of a tensor. One that no call made is an attribute of the network, or comes from outside of it."""
        if id(tensor) not in self._nodes:
            name = self._names.get(id(tensor))
            if name is None and (same := self._same(tensor)) is not None:
                self._alive.append(tensor)
                self._nodes[id(tensor)] = self._nodes[id(same)]
                return self._nodes[id(tensor)]
            if name is None:
                name = f"outside_{len(self.outside)}"
                self.outside.append(name)
            node = self.graph.get_attr(name)
            node.meta.update(address=name, function="attribute")
            self.attributes[name] = tensor
            self._register(tensor, node)
        return self._nodes[id(tensor)]

    def _same(self, tensor: Tensor) -> Tensor | None:
        """The recorded tensor that another object stands for, such as one of a subclass of `Tensor` that it was turned into."""

        def identity(each: Tensor) -> tuple[Any, ...]:
            return (
                each.data_ptr(),
                each.shape,
                each.stride(),
                each.dtype,
                each.requires_grad,
                each.is_conj(),
                each.is_neg(),
            )

        if tensor.layout != torch.strided or not tensor.numel():
            return None
        same = (
            each
            for each in reversed(self._alive)
            if each.layout == torch.strided and storage_of(each) == storage_of(tensor)
        )
        return next((each for each in same if identity(each) == identity(tensor)), None)

    def _is_made_of_sizes(self, tensor: Tensor) -> bool:
        """Whether a tensor is made of sizes and constants alone, and so has the same values for every image of a size."""
        pending, visited = [self._nodes[id(tensor)]], set()
        while pending:
            node = pending.pop()
            if node in visited:
                continue
            visited.add(node)
            is_weight = node.op == "get_attr" and (
                node.target not in self.outside or self.attributes[str(node.target)].requires_grad
            )
            if (
                node.op in {"placeholder", "call_module"}
                or is_weight
                or str(node.meta.get("function", "")).startswith(RANDOM)
            ):
                return False
            if not (node.op == "call_method" and node.target == "size"):
                pending += [*node.all_input_nodes, *node.meta.get("after", ())]
        return True

    def _versions(self, args: Any, kwargs: Any) -> list[tuple[Tensor, int]]:
        return [
            (value, value._version)
            for value in tree_iter((args, dict(kwargs)))
            if isinstance(value, Tensor) and not value.is_inference()
        ]

    def _arguments(self, args: Any, kwargs: Mapping[str, Any], address: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tuple(self._argument(value, address) for value in args), {
            key: self._argument(value, address) for key, value in kwargs.items()
        }

    def _argument(self, value: Any, address: str) -> Any:  # noqa: PLR0911 (a rule for each kind)
        """An argument of a call, with nodes in the place of tensors and of sizes."""
        if isinstance(value, Tensor):
            return self._node(value)
        if isinstance(value, TracedSize | TracedRatio):
            return value.node
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._argument(item, address) for item in value))
        if isinstance(value, list | tuple):
            return (list if isinstance(value, list) else tuple)(self._argument(item, address) for item in value)
        if isinstance(value, Mapping):
            return {key: self._argument(item, address) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self._argument(each, address) for each in (value.start, value.stop, value.step)))
        if isinstance(value, torch.device):
            return self._device()
        if isinstance(value, CONSTANTS):
            return value
        raise NetworkError(
            f"{address} is called with a {type(value).__name__}, which is not recorded: ablate it instead"
        )

    def _device(self) -> fx.Node:
        """The device of the network's input: a program goes where its input is."""
        image = next(iter(self.graph.nodes))
        return self.graph.call_function(getattr, (image, "device"))


def storage_of(tensor: Tensor) -> int:
    """The identity of the memory of a tensor."""
    return tensor.untyped_storage()._cdata
