"""A network as the program of its calls: a plain module with the weights of the original under their names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph_module import _format_import_block
from torch.package.importer import ObjNotFoundError, sys_importer

from unetscope.base import NetworkError, first_line
from unetscope.networks.masks import WeightEdit

PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type,
    FunctionType,
    BuiltinFunctionType,
    torch.dtype,
    torch.Size,
)


@dataclass(frozen=True)
class Step:
    """One step from a network to another: parts of it that are left out, or skips that are made thin.

    left_out: the names of the parts. constants: by module, how it keeps the constants that a normalisation made of zeros, as
    a `channel` or in its `bias`. thinned: of how many directions skips are. Names are those of the network before the step.
    """

    left_out: tuple[str, ...] = ()
    constants: dict[str, str] = field(default_factory=dict)
    thinned: dict[str, int] = field(default_factory=dict)


@dataclass
class SurgeryRecord:
    """What was done to a network.

    steps: from the original, in order. notes: what the user must know of it, as sentences. example: the arguments that it was
    recorded with. code: of the forward pass, by mode (`training` or not). always_evaluating: the modules that stay in
    evaluation mode.
    """

    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    example: tuple[Any, ...] = ()
    code: dict[bool, str] = field(default_factory=dict)
    always_evaluating: frozenset[str] = frozenset()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The parts that are left out, step after step."""
        return tuple(name for step in self.steps for name in step.left_out)

    @property
    def thinned(self) -> dict[str, int]:
        """Of how many directions thin skips are."""
        return {name: kept for step in self.steps for name, kept in step.thinned.items()}

    @property
    def constants(self) -> dict[str, str]:
        """By module, how it keeps constants."""
        return {name: kept for step in self.steps for name, kept in step.constants.items()}

    def add(self, step: Step, notes: Iterable[str], before: nn.Module) -> None:
        """Note a step. before: the network that it was taken from, whose own steps come first."""
        earlier = before.surgery_record if isinstance(before, Rewired) else SurgeryRecord()
        self.steps = (*earlier.steps, step)
        self.notes = tuple(dict.fromkeys((*earlier.notes, *notes, *_lost_hooks(before))))


def _lost_hooks(network: nn.Module) -> list[str]:
    """The note on hooks that change or read gradients, if there are any: they are Python, which no program holds."""
    hooked = [name for name, each in network.named_parameters() if _has_hooks(each)]
    hooked += [name or type(network).__name__ for name, each in network.named_modules() if _has_hooks(each)]
    return [f"hooks on the gradients of {', '.join(hooked)} are not kept: register them again"] if hooked else []


def _has_hooks(each: Any) -> bool:
    kinds = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(each, kind, None) for kind in kinds)


class _OfRecord:
    """An attribute of the record, unless the original has a part of that name."""

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, network: Rewired | None, _owner: type) -> Any:
        if network is None:
            return self
        named = {**network._modules, **network._parameters, **network._buffers}
        return named[self._name] if self._name in named else getattr(network.surgery_record, self._name)


class Rewired(nn.Module):
    """A network without some of its parts, or with thin skips. It is recorded, and runs without the original's Python code.

    Weights have the names of the original. Its parts are its own: copies that share no memory with the original.

    What the `surgery_record` says can also be read as `left_out`, `thinned`, `notes`, `constants`, `example` and `code`, where
    the original has no part of that name.
    """

    left_out, thinned, notes, constants, example, code = (_OfRecord() for _ in range(6))

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        attributes: Mapping[str, Tensor],
        always_evaluating: Iterable[str],
        example: tuple[Any, ...],
    ) -> None:
        super().__init__()
        self.surgery_record = SurgeryRecord(example=example, always_evaluating=frozenset(always_evaluating))
        self._forwards: dict[bool, Any] = {}
        memo: dict[int, Any] = {}
        for name, module in modules.items():
            _set(self, name, _own_copy(module, memo))
        for name, value in attributes.items():
            parent = _parent(self, name)
            leaf = name.rpartition(".")[2]
            if leaf not in parent._parameters and leaf not in parent._buffers:
                _register(parent, leaf, _own_tensor(value, memo))

    @property
    def network(self) -> nn.Module:
        """The part of that name, or else the network itself: earlier versions wrapped it."""
        return self._modules.get("network") or self

    def forward(self, image: Any, *others: Any) -> Any:
        """The network's output, in the form of the original's. others: its further arguments, as in the example.

        Raises: NetworkError for an argument that is no tensor and differs from the example's, which the program holds.
        """
        for position, (value, recorded) in enumerate(zip((image, *others), self.surgery_record.example, strict=False)):
            if not (isinstance(value, Tensor) and isinstance(recorded, Tensor)):
                _refuse_other_value(position, value, recorded)
        return self._forwards[self.training](self, image, *others)

    def train(self, mode: bool = True) -> Rewired:
        """Set the mode. What the original keeps in evaluation mode while it trains stays so."""
        super().train(mode)
        for name in self.surgery_record.always_evaluating:
            self.get_submodule(name).train(False)
        return self

    def set_code(self, graphs: Mapping[bool, fx.Graph]) -> None:
        """Take the programs of both modes, and drop the weights that neither of them reads."""
        for training, graph in graphs.items():
            code = graph.python_code("self")
            try:
                imports = _format_import_block(code.globals, sys_importer)
            except ObjNotFoundError as error:
                raise NetworkError(
                    f"the network makes objects of a class within a function, which no program imports ({first_line(error)}): "
                    "define it at the top of a module"
                ) from None
            self.surgery_record.code[training] = f"{imports}\n{code.src}"
        self._compile()
        used = [
            str(node.target)
            for graph in graphs.values()
            for node in graph.nodes
            if node.op in {"call_module", "get_attr"}
        ]
        _prune(self, "", used)
        names = dict(self.named_modules())
        self.surgery_record.always_evaluating = frozenset(
            name for name in self.surgery_record.always_evaluating if name in names
        )

    def _compile(self) -> None:
        self._forwards = {}
        for training, code in self.surgery_record.code.items():
            same = next((mode for mode in self._forwards if self.surgery_record.code[mode] == code), None)
            if same is not None:
                self._forwards[training] = self._forwards[same]
                continue
            scope: dict[str, Any] = {"inf": float("inf"), "nan": float("nan"), "NoneType": type(None)}
            exec(compile(code, f"<{type(self).__name__} {'training' if training else 'evaluation'}>", "exec"), scope)  # noqa: S102 (the program of a network that the user gave)
            self._forwards[training] = scope["forward"]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_forwards"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forwards = {}
        self._compile()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}: it keeps the weights and calls of the original network, and none of "
                "its other attributes, such as features that hooks store"
            ) from None


def _refuse_other_value(position: int, value: Any, recorded: Any) -> None:
    if type(value) is not type(recorded) or value != recorded:
        raise NetworkError(
            f"argument {position} of the network is {value!r}, and it was recorded with {recorded!r}: inspect the network with "
            "the value that it shall run with, and leave the parts out again"
        )


def _own_copy(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A module of PyTorch's with weights of its own, and nothing that users hung onto it."""
    if id(module) in memo:
        return memo[id(module)]  # type: ignore[no-any-return]
    own = type(module).__new__(type(module))
    nn.Module.__init__(own)
    memo[id(module)] = own
    for key, value in vars(module).items():
        # What torch.compile makes of a module runs the original.
        if key not in vars(own) and key != "_compiled_call_impl" and _is_plain(value):
            vars(own)[key] = copy.copy(value)
    own.training = module.training
    for key, parameter in module._parameters.items():
        own._parameters[key] = None if parameter is None else _own_tensor(parameter, memo)  # type: ignore[assignment]
    for key, buffer in module._buffers.items():
        own._buffers[key] = None if buffer is None else _own_tensor(buffer, memo)
    own._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
    for key, child in module._modules.items():
        own._modules[key] = None if child is None else _own_copy(child, memo)
    if isinstance(own, nn.RNNBase):
        own._init_flat_weights()  # it also keeps its weights in a list
    return own


def _is_plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, list | tuple) and all(map(_is_plain, value)))


def _own_tensor(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy with memory of its own. Tied weights stay tied."""
    if id(tensor) not in memo:
        values = tensor.detach().clone()
        trainable = isinstance(tensor, nn.Parameter) or (tensor.is_leaf and tensor.requires_grad)
        memo[id(tensor)] = nn.Parameter(values, requires_grad=tensor.requires_grad) if trainable else values
    return memo[id(tensor)]  # type: ignore[no-any-return]


def _set(root: nn.Module, name: str, module: nn.Module) -> None:
    parent = _parent(root, name)
    parent._modules[name.rpartition(".")[2]] = module


def _parent(root: nn.Module, name: str) -> nn.Module:
    """The module that holds a name, made where it is missing. A list of modules can be indexed, as in the original."""
    parent = root
    for part in name.split(".")[:-1]:
        if part not in parent._modules:
            parent._modules[part] = nn.Sequential()
        parent = parent._modules[part]  # type: ignore[assignment]
    return parent


def _register(parent: nn.Module, name: str, value: Tensor) -> None:
    if isinstance(value, nn.Parameter):
        parent._parameters[name] = value
    else:
        parent._buffers[name] = value


def _prune(module: nn.Module, prefix: str, used: Iterable[str]) -> None:
    """Remove modules, parameters and buffers that no program reads."""
    names = set(used)
    for key, child in list(module._modules.items()):
        name = prefix + key
        if name in names or child is None:
            continue
        _prune(child, f"{name}.", names)
        if not (child._modules or child._parameters or child._buffers):
            del module._modules[key]
    for values in (module._parameters, module._buffers):
        for key in [key for key in values if prefix + key not in names]:
            del values[key]


def cut_weights(module: nn.Module, edit: WeightEdit) -> None:
    """Take from a module the weights of channels that it no longer has."""
    weights: Any = module
    with torch.no_grad():
        if edit.groups is not None and hasattr(module, "num_groups"):
            weights.num_groups, weights.num_channels = edit.groups, len(edit.outputs or ())
        elif edit.groups is not None:
            weights.groups = edit.groups
        if isinstance(module, nn.modules.conv._ConvNd):
            _cut_convolution(weights, edit)
        elif isinstance(module, nn.Linear):
            _cut_linear(weights, edit)
        elif edit.outputs is not None:
            _keep_channels(module, torch.tensor(edit.outputs))


def _cut_convolution(module: Any, edit: WeightEdit) -> None:
    inputs, transposed = torch.tensor(edit.inputs), isinstance(module, nn.modules.conv._ConvTransposeNd)
    weight = module.weight
    if edit.outputs is None:
        kept = weight[inputs] if transposed else weight[:, inputs]
        if edit.folded:
            gone, values = (torch.tensor(each) for each in zip(*edit.folded, strict=True))
            values = values.to(weight)
            columns = weight[gone] if transposed else weight[:, gone].movedim(1, 0)
            constant = torch.tensordot(values, columns, dims=1)  # [out, ...], of a channel of ones
            if edit.as_channel:
                kept = torch.cat([kept, constant[None] if transposed else constant[:, None]], 0 if transposed else 1)
            else:
                bias = constant.flatten(1).sum(1)
                module.bias = nn.Parameter(bias if module.bias is None else module.bias + bias, weight.requires_grad)
        module.weight, module.in_channels = _like(weight, kept), len(inputs) + (bool(edit.folded) and edit.as_channel)
        return
    outputs = torch.tensor(edit.outputs)
    module.weight = _like(weight, weight[inputs] if transposed else weight[outputs])
    if module.bias is not None:
        module.bias = _like(module.bias, module.bias[outputs])
    module.in_channels, module.out_channels = len(inputs), len(outputs)


def _cut_linear(module: Any, edit: WeightEdit) -> None:
    weight = module.weight
    if edit.folded:
        gone, values = (torch.tensor(each) for each in zip(*edit.folded, strict=True))
        bias = weight[:, gone] @ values.to(weight)
        module.bias = nn.Parameter(bias if module.bias is None else module.bias + bias, weight.requires_grad)
    module.weight = _like(weight, weight[:, torch.tensor(edit.inputs)])
    module.in_features = len(edit.inputs or ())


def _like(parameter: Tensor, values: Tensor) -> nn.Parameter:
    """A parameter of these values, trained if the given one is."""
    return nn.Parameter(values.clone(), requires_grad=parameter.requires_grad)


def _keep_channels(module: nn.Module, kept: Tensor) -> None:
    """Keep, of a normalisation or an activation with weights, those of some channels."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.numel() > 1:
            setattr(module, name, _like(parameter, parameter[kept]))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.numel() > 1:
            setattr(module, name, buffer[kept])
    for name in ("num_features", "num_parameters"):
        if hasattr(module, name):
            setattr(module, name, len(kept))
