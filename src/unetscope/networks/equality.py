"""Whether a recorded program does what its network does, and a smaller program what the silenced one does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from unetscope.activations import eval_mode, kept_parameters
from unetscope.base import NetworkError, first_line
from unetscope.networks.ablation import replace_streams, zeros_of
from unetscope.networks.live_calls import hold_sides
from unetscope.networks.program import Program
from unetscope.networks.program_tensors import RANDOM
from unetscope.networks.rewired import Rewired
from unetscope.networks.structure import Operand, Structure

TOLERANCE = 1e-6  # of the largest value
AGREEING = 1e-5  # of the largest value: the network and its program compute the same in another order
SEED = 0

# Other sides of images, as factor, more, step (see `with_sides`). Of each group one is tried at least, since what a network
# computes with sizes outside of torch, such as how much it pads, may show at sides that no power of two divides alone.
OTHER_SIDES = (
    ((0.5, 0, 0), (2.0, 0, 0)),
    ((0.5, 1, 1), (0.5, 1, 0), (1.0, 1, 1), (1.0, 1, 0)),
    ((0.5, 3, 0), (1.0, 3, 0), (1.25, 0, 0)),
)

Reading = tuple[fx.Node, fx.Node, int, list[int]]  # a call, what it reads, and the channels of an axis
Ranges = tuple[tuple[float, float], ...]  # of each channel, its smallest and its largest value


def noise_like(arguments: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """Arguments of the same shapes with other values.

    Integers stay, since they may count or name something; those of an image, or of a map of classes, change places.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if value.is_complex():
            return torch.complex(noise(value.real), noise(value.imag)).to(value)
        if not value.is_floating_point():
            order = torch.randperm(value.numel(), generator=generator).to(value.device)
            return value.flatten()[order].view(value.shape) if value.ndim > 2 else value
        low, high = (float(value.min()), float(value.max())) if value.numel() else (0.0, 1.0)
        spread = (high - low) or 1.0
        return (torch.rand(value.shape, generator=generator) * spread + low).to(value)

    return tuple(map(noise, arguments))


def in_batch(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    """Two images of one shape as a batch."""
    return tuple(
        torch.cat([a, b]) if isinstance(a, Tensor) and a.ndim and len(a) == 1 else a
        for a, b in zip(first, second, strict=True)
    )


def with_sides(arguments: Sequence[Any], factor: float, more: int = 0, step: int = 0) -> tuple[Any, ...]:
    """Arguments whose images have other sides, by a factor and so many more; those that are not images stay.

    step: by how much more each side gets than the one before it.
    """
    ndim = arguments[0].ndim

    def scale(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != ndim:
            return value
        sides = (max(1, int(side * factor) + more + step * axis) for axis, side in enumerate(value.shape[2:]))
        shape = (*value.shape[:2], *sides)
        generator = torch.Generator().manual_seed(SEED)
        return torch.rand(shape, generator=generator).to(value) if value.is_floating_point() else value.new_zeros(shape)

    return tuple(map(scale, arguments))


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Within the block, a network runs in a mode and without dropout, and is left unchanged."""
    with eval_mode(model), ExitStack() as stack:
        if training:
            stack.enter_context(kept_parameters(model))
        model.train(training)
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.training = False
        torch.manual_seed(SEED)
        yield


def network_outputs(
    model: nn.Module, streams: Mapping[str, Operand], arguments: Sequence[Any], training: bool
) -> list[Tensor]:
    """What a network returns with zeros in the place of streams."""
    zeros = replace_streams(model, streams, lambda _, stream: zeros_of(stream), gradients=False)
    with in_mode(model, training), zeros:
        return tensors_of(model(*_copies(arguments)))


def program_outputs(program: nn.Module, arguments: Sequence[Any], training: bool) -> list[Tensor]:
    """What a program returns."""
    with in_mode(program, training):
        return tensors_of(program(*_copies(arguments)))


def example_of(structure: Structure) -> tuple[Any, ...]:
    """The arguments that a network was inspected with. Raises: NetworkError if they are not kept."""
    if not structure.example:
        raise NetworkError("this structure has no example to run the network on: inspect the network again")
    return structure.example


def recorded_and_checked(model: nn.Module, example: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What a network is recorded on and what it is checked on: the example and noise, then noise and the example."""
    first, second = noise_like(example, 1), noise_like(example, 2)
    batch = in_batch(example, first)
    try:
        network_outputs(model, {}, batch, training=False)
    except Exception:  # a network for one image at a time
        return example, second
    return batch, in_batch(second, example)


def refuse_fixed_batch(result: Rewired, expected: Sequence[Tensor]) -> None:
    """Refuse a program that holds for the recorded batch alone, where the network takes the example by itself.

    Python makes a plain number of what `len(x)` gives, so that a recording cannot follow it. expected: outputs of the example.
    Raises: NetworkError.
    """
    try:
        difference = differ(program_outputs(result, result.surgery_record.example, False), expected, 1e-4)
    except Exception as failure:  # of a program that was recorded with two images
        difference = first_line(failure)
    if difference:
        raise NetworkError(
            f"the smaller network would run on batches of 2 images alone ({difference}): images are counted outside of torch, "
            "as by len(x); write x.shape[0], or ablate it instead"
        )


def held_to_sides(
    result: Rewired,
    whole: Rewired,
    programs: Mapping[bool, Program],
    expected: Callable[[tuple[Any, ...]], list[Tensor]],
    checked_on: Sequence[Any],
) -> str:
    """Let the result take images of the example's sides alone, if it is not what it has to equal at other sides that the
    network takes; the note on this, empty if it holds.

    whole: the programs before they were made smaller. programs: those of the result, by mode. expected: what a network gives
    for arguments, or its failure.
    """
    escaped = any(program.sizes_escaped for program in programs.values())
    if _holds_at_other_sizes(result, whole, expected, checked_on, sizes_escaped=escaped):
        return ""
    for program in programs.values():
        hold_sides(program.graph, checked_on[0].shape[2:])
    result.set_code({mode: program.graph for mode, program in programs.items()})
    return note_of_sides(checked_on, "the original computes with sizes outside of torch")


def note_of_sides(checked_on: Sequence[Any], why: str) -> str:
    """The note that a network takes images of the example's sides alone."""
    return f"it takes images of {'×'.join(map(str, checked_on[0].shape[2:]))} alone: {why}"


def _holds_at_other_sizes(
    result: Rewired,
    whole: Rewired,
    expected: Callable[[tuple[Any, ...]], list[Tensor]],
    checked_on: Sequence[Any],
    *,
    sizes_escaped: bool,
) -> bool:
    """Whether programs are what they have to equal at other sizes of images too, of those that the network takes.

    whole: the program before it was made smaller. expected: what a network gives for arguments, or its failure. sizes_escaped:
    whether sizes are known to be computed with outside of torch, so that all of `OTHER_SIDES` are tried.
    """
    example = noise_like(checked_on, 3)
    for alternatives in OTHER_SIDES:
        for factor, more, step in alternatives:
            inputs = with_sides(example, factor, more, step)
            try:
                outputs = expected(inputs)
            except Exception:  # noqa: S112 (a size that the network does not take)
                continue
            try:
                of_whole = program_outputs(whole, inputs, training=False)
                if differ(of_whole, outputs, AGREEING) or differ(
                    program_outputs(result, inputs, False), of_whole, 1e-4
                ):
                    return False
            except NetworkError:  # which names the condition that does not hold
                pass
            except Exception:
                return False
            if not sizes_escaped:
                break
    return True


def read_values(
    program: nn.Module, graph: fx.Graph, reads: Sequence[Reading], arguments: Sequence[Any], training: bool
) -> list[Ranges]:
    """The range of values of each channel that is read no more, in the silenced program. reads: of its graph.

    Where they are not zero, the program runs on other values too: on one input, a mean of the image is constant as well.
    """
    ranges = _values_read(program, graph, reads, arguments, training)
    if not any(any(pair) for values in ranges for pair in values):
        return ranges
    others = _values_read(program, graph, reads, noise_like(arguments, 3), training)
    return [
        tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(values, of_others, strict=True))
        for values, of_others in zip(ranges, others, strict=True)
    ]


def _values_read(
    program: nn.Module, graph: fx.Graph, reads: Sequence[Reading], arguments: Sequence[Any], training: bool
) -> list[Ranges]:
    ranges: dict[int, Ranges] = {}

    class Interpreter(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            for number, (node, source, axis, channels) in enumerate(reads):
                if node is n:
                    values = self.env[source]
                    gone = values.index_select(axis, torch.tensor(channels, device=values.device))
                    rows = gone.movedim(axis, 0).flatten(1)
                    ranges[number] = tuple(zip(rows.amin(1).tolist(), rows.amax(1).tolist(), strict=True))
            return super().run_node(n)

    with in_mode(program, training):
        Interpreter(program, graph=graph).run(*_copies(arguments))
    return [ranges[number] for number in range(len(reads))]


def differ(outputs: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = TOLERANCE) -> str:
    """By how much two lists of outputs differ, as text; empty if they are equal to a tolerance of the largest value."""
    if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in expected]:
        return "outputs of other shapes"
    for output, reference in zip(outputs, expected, strict=True):
        a, b = (
            torch.view_as_real(each).double() if each.is_complex() else each.double() for each in (output, reference)
        )
        largest = float(b.abs().nan_to_num().max()) if b.numel() else 0.0
        unequal = ~((a == b) | (a.isnan() & b.isnan()))
        difference = float((a - b)[unequal].abs().nan_to_num(nan=torch.inf).max()) if bool(unequal.any()) else 0.0
        if difference > tolerance * largest:
            return f"{difference:.2g} of {largest:.2g}"
    return ""


def draws_at_random(graph: fx.Graph) -> str:
    """The first call of a program that draws random numbers, other than a module of dropout; empty if there is none."""
    for node in graph.nodes:
        name = node.meta.get("function", "")
        is_dropout = "dropout" in name and node.op != "call_module" and (node.kwargs.get("training", True) is True)
        if is_dropout or (name.startswith(RANDOM) and not name.startswith("normalize")):
            return f"{name} ({node.meta['address']})"
    return ""


def tensors_of(values: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    if is_dataclass(values) and not isinstance(values, type):
        return [tensor for each in fields(values) for tensor in tensors_of(getattr(values, each.name))]
    leaves = tree_leaves(values, is_leaf=lambda value: is_dataclass(value) and not isinstance(value, type))
    return [
        tensor
        for leaf in leaves
        for tensor in ([leaf] if isinstance(leaf, Tensor) else tensors_of(leaf) if is_dataclass(leaf) else [])
    ]


def as_double(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments in float64."""
    return tuple(
        tree_map(
            lambda value: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value,
            arguments,
        )
    )


def _copies(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments that the network may write to."""
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in arguments)
