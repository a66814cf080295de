"""Thin skips: a skip is kept as a few directions of its channels until its merge, and costs as little memory as they do.

A convolution of size 1 takes the k strongest directions of the stream where it is made, and another spreads them to all
channels where it is joined. If convolutions alone read the joined channels, the second is folded into their weights.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from unetscope.activations import eval_mode, unwrap_model
from unetscope.base import InvalidArgument, NetworkError, preserve_rng
from unetscope.networks.ablation import replace_streams
from unetscope.networks.equality import (
    AGREEING,
    as_double,
    differ,
    draws_at_random,
    example_of,
    held_to_sides,
    in_mode,
    program_outputs,
    recorded_and_checked,
    refuse_fixed_batch,
    tensors_of,
)
from unetscope.networks.leaving_out import CONCATENATIONS, positions_of, replace_tensors
from unetscope.networks.masks import concatenation_axis, tensor_arguments
from unetscope.networks.program import Program, record_program
from unetscope.networks.rewired import Rewired, Step
from unetscope.networks.shared_weights import shares_weights, weight_readers
from unetscope.networks.structure import Operand, Structure
from unetscope.networks.surgery import MODES

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}  # by the sides of an image


@dataclass(frozen=True)
class Directions:
    """The directions of a skip's channels, strongest first.

    strengths: the mean square of the stream along each. vectors: orthonormal, a column each.
    """

    strengths: Float[Tensor, " channels"]
    vectors: Float[Tensor, "channels channels"]

    def share(self, kept: int) -> float:
        """The share of the stream's mean square that so many directions have; 1 if it is zero everywhere.

        >>> Directions(torch.tensor([3.0, 1.0]), torch.eye(2)).share(1)
        0.75
        """
        total = self.strengths.sum().item()
        return self.strengths[:kept].sum().item() / total if total > 0 else 1.0


@preserve_rng()
def skip_directions(
    model: nn.Module, structure: Structure, skips: str | list[str], images: Float[Tensor, "n c *sides"]
) -> dict[str, Directions]:
    """The directions of the channels of skips, over all places of these images, in evaluation mode.

    They are the eigenvectors of the stream's second moments. The mean is not taken away: what is left of a stream is linear in
    it, so that zeros stay zeros and the padding of a convolution behind it does too.

    images: as the network takes them. Its further arguments are those of the structure's example.

    Raises: NetworkError for an unknown skip.

    >>> from unetscope.networks.inspection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, images = UNet(2, depth=2), torch.rand(4, 3, 16, 16)
    >>> skip_directions(model, inspect(model, images[:1]), "skip2", images)["skip2"].strengths.shape
    torch.Size([4])
    """
    model = unwrap_model(model)
    streams = {  # where they are joined, and not what else they enter there, such as the condition of a selection
        name: replace(structure.merge_of(name).skips[name], others=())
        for name in ([skips] if isinstance(skips, str) else skips)
    }
    moments: dict[str, Tensor] = {}

    def add(name: str, stream: Tensor) -> Tensor:
        values = stream.detach().movedim(1, -1).flatten(1, -2).double()  # [images, places, channels]
        moments[name] = moments.get(name, 0) + torch.einsum("npc,npd->cd", values, values) / values.shape[1] / len(
            images
        )
        return stream

    image, *others = example_of(structure)
    with eval_mode(model), torch.no_grad(), replace_streams(model, streams, add, gradients=False):
        for batch in images.split(len(image)):
            model(batch, *others)
    ascending = {name: torch.linalg.eigh(moment) for name, moment in moments.items()}
    return {
        name: Directions(strengths.flip(0).clamp(min=0), vectors.flip(1))
        for name, (strengths, vectors) in ascending.items()
    }


@preserve_rng()
def thinned(
    model: nn.Module, structure: Structure, kept: Mapping[str, int], images: Float[Tensor, "n c *sides"] | None
) -> Rewired:
    """A network that keeps the strongest directions of some skips alone, to use or to train on. The original is left unchanged.

    kept: how many directions of each skip, such as `{"skip1": 4}`. images: to find the directions on, see `skip_directions`;
    None for directions of zeros, if the weights are yet to come.

    The result equals the network with the projection of each skip in its place. This is checked on the example and on random
    images, in both modes, in float64, without dropout.

    Raises: NetworkError for an unknown skip; for a network that no program can follow; if the result is not equal.
    InvalidArgument if a skip has not so many channels.

    >>> from unetscope.networks.inspection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, images = UNet(4, depth=2).eval(), torch.rand(4, 3, 16, 16)
    >>> structure = inspect(model, images[:1])
    >>> thin = thinned(model, structure, {"skip1": 1}, images)
    >>> [thin.get_submodule("thin_skip1.compress").weight.shape, thin(images).shape]
    [torch.Size([1, 4, 1, 1]), torch.Size([4, 1, 16, 16])]
    """
    if not kept:
        raise InvalidArgument("no skip to make thinner is named: expected such as {'skip1': 4}")
    return _Thinning(unwrap_model(model), structure, kept, images).network()


class _Thinning:
    """The steps from a network to one with thin skips."""

    def __init__(self, model: nn.Module, structure: Structure, kept: Mapping[str, int], images: Tensor | None) -> None:
        self._model, self._kept, self._is_checked = model, kept, images is not None
        self._streams = {name: structure.merge_of(name).skips[name] for name in kept}
        directions = {} if images is None else skip_directions(model, structure, list(kept), images)
        recorded_on, self._checked_on = recorded_and_checked(model, example_of(structure))
        self._programs = {mode: record_program(model, recorded_on, training=mode) for mode in MODES}
        self._added = {name: _free_name(model, f"thin_{name}") for name in kept}  # modules, by skip
        self._modules: dict[str, nn.Module] = {}
        self._notes: list[str] = []
        for name, number in kept.items():
            shape = self._shape(name)
            if not 1 <= number <= shape[1]:
                raise InvalidArgument(f"{name} has {shape[1]} channels, so 1 to {shape[1]} can be kept, got {number}")
            vectors = directions[name].vectors[:, :number] if name in directions else torch.zeros(shape[1], number)
            self._add_pair(name, vectors, len(shape) - 2)
        modules = {**self._programs[True].modules, **self._programs[False].modules, **self._modules}
        attributes = {**self._programs[True].attributes, **self._programs[False].attributes}
        frozen = self._programs[True].graph.output_node().meta["frozen"]
        self._result, self._spread = (Rewired(modules, attributes, frozen, structure.example) for _ in range(2))

    def _shape(self, name: str) -> tuple[int, ...]:
        """Of the stream, in the recording."""
        program = self._programs[False]
        ((join, places), *_) = positions_of(program, [self._streams[name]]).items()
        shape = tuple(tensor_arguments(join)[min(places)].meta["shape"])
        if len(shape) - 2 not in CONVOLUTIONS:
            raise NetworkError(f"{name} has the shape {list(shape)}: expected images, channels and one to three sides")
        return shape

    def _add_pair(self, name: str, vectors: Float[Tensor, "channels kept"], sides: int) -> None:
        channels, number = vectors.shape
        convolution = CONVOLUTIONS[sides]
        compress = convolution(channels, number, 1, bias=False)
        expand = convolution(number, channels, 1, bias=False)
        like = next((p for p in self._model.parameters() if p.is_floating_point()), torch.zeros(()))
        ones = (1,) * sides
        compress.weight = nn.Parameter(vectors.T.reshape(number, channels, *ones).contiguous().to(like))
        expand.weight = nn.Parameter(vectors.reshape(channels, number, *ones).contiguous().to(like))
        self._modules |= {f"{self._added[name]}.compress": compress, f"{self._added[name]}.expand": expand}

    def network(self) -> Rewired:
        """The network with thin skips."""
        folded: dict[str, list[_Segment]] = {}
        for program in self._programs.values():
            for name, stream in self._streams.items():
                self._insert(program, name, stream)
        self._spread.set_code({mode: program.graph for mode, program in self._programs.items()})
        foldable = [_foldable(program, self._result) for program in self._programs.values()]
        for join in foldable[0].keys() & foldable[1].keys():
            if _read_alike(foldable[0][join], foldable[1][join]):
                folded |= foldable[0][join].by_convolution
                for joins in foldable:
                    _read_directly(joins[join].node)
        for name, segments in folded.items():
            _fold(self._result, name, segments)
        self._result.set_code({mode: program.graph for mode, program in self._programs.items()})
        if self._is_checked:
            self._check()
            refuse_fixed_batch(self._result, self._projected_outputs(self._result.surgery_record.example))
        note = held_to_sides(self._result, self._spread, self._programs, self._projected_outputs, self._checked_on)
        self._notes += [note] * bool(note)
        self._result.surgery_record.add(Step(thinned=dict(self._kept)), self._notes, self._model)
        return self._result.train(self._model.training)

    def _insert(self, program: Program, name: str, stream: Operand) -> None:
        """Compress a stream once it is complete, and expand it where it is joined."""
        order = {node: number for number, node in enumerate(program.graph.nodes)}
        for join, places in positions_of(program, [stream]).items():
            expanded = {}
            for place in places:
                source = tensor_arguments(join)[place]
                writers = [node for node in join.meta.get("after", ()) if order[source] < order[node] < order[join]]
                with program.graph.inserting_after(max([source, *writers], key=order.__getitem__)):
                    compressed = program.graph.call_module(f"{self._added[name]}.compress", (source,))
                with program.graph.inserting_before(join):
                    expanded[place] = program.graph.call_module(f"{self._added[name]}.expand", (compressed,))
                for node, ends in ((compressed, "compress"), (expanded[place], "expand")):
                    address = f"{self._added[name]}.{ends}"
                    node.meta.update(source.meta, function=ends, address=address, writes=False, thin=self._added[name])
            replace_tensors(join, lambda place, tensor, expanded=expanded: expanded.get(place, tensor))  # type: ignore[misc]

    def _check(self) -> None:
        """Refuse a result that is not the network with each skip projected."""

        small, spread = copy.deepcopy(self._result).double(), copy.deepcopy(self._spread).double()
        inputs = as_double(self._checked_on)
        for training in MODES:
            if training and (call := draws_at_random(self._programs[True].graph)):
                self._notes.append(f"{call} draws at random in training mode, where equality is not checked")
                continue
            expected = self._projected_outputs(self._checked_on, training)
            difference = differ(program_outputs(self._spread, self._checked_on, training), expected, AGREEING)
            try:
                folded = differ(program_outputs(small, inputs, training), program_outputs(spread, inputs, training))
            except RuntimeError:  # of networks that name float32 in their code
                small, spread, inputs = self._result, self._spread, self._checked_on
                folded = differ(
                    program_outputs(small, inputs, training), program_outputs(spread, inputs, training), AGREEING
                )
            difference = difference or folded
            if difference:
                mode = "training" if training else "evaluation"
                raise NetworkError(
                    f"the network with thin {', '.join(self._kept)} would differ in {mode} mode from the network with these "
                    f"skips projected ({difference}): it cannot be made thinner here"
                )

    def _projected_outputs(self, inputs: tuple[Any, ...], training: bool = False) -> list[Tensor]:
        """What the original gives with each skip projected."""

        def project(name: str, values: Tensor) -> Tensor:
            pair = [self._spread.get_submodule(f"{self._added[name]}.{end}") for end in ("compress", "expand")]
            return pair[1](pair[0](values))  # type: ignore[no-any-return]

        with in_mode(self._model, training), replace_streams(self._model, self._streams, project, gradients=False):
            values = [each.clone() if isinstance(each, Tensor) else each for each in inputs]
            return tensors_of(self._model(*values))


@dataclass(frozen=True)
class _Segment:
    """Channels of a concatenation: how many there are, and the module of the thin skip that expands them; empty for none."""

    channels: int
    thin: str


@dataclass(frozen=True)
class _Foldable:
    """A concatenation that convolutions alone read."""

    node: fx.Node
    segments: tuple[_Segment, ...]
    convolutions: tuple[str, ...]

    @property
    def by_convolution(self) -> dict[str, list[_Segment]]:
        """The segments that each of the convolutions reads."""
        return {name: list(self.segments) for name in self.convolutions}


def _free_name(model: nn.Module, name: str) -> str:
    """A name that no part of a network has, which may have thin skips already."""
    taken = {child for child, _ in model.named_children()}
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def _read_alike(in_one_mode: _Foldable, in_the_other: _Foldable) -> bool:
    """Whether the same convolutions read the same concatenation in both modes."""
    return (in_one_mode.segments, set(in_one_mode.convolutions)) == (
        in_the_other.segments,
        set(in_the_other.convolutions),
    )


def _foldable(program: Program, network: Rewired) -> dict[str, _Foldable]:
    """The concatenations of expanded skips whose readers can take the directions themselves, by address."""
    readers = weight_readers(program.graph, network)
    foldable = {}
    for node in program.graph.nodes:
        if node.meta.get("function") not in CONCATENATIONS or concatenation_axis(node) != 1:
            continue
        tensors = tensor_arguments(node)
        if not any(map(_expanded_from, tensors)):
            continue
        if all(
            _takes_any_channels(network, user) and not shares_weights(user, network, readers) for user in node.users
        ):
            segments = tuple(_Segment(tensor.meta["shape"][1], _expanded_from(tensor)) for tensor in tensors)
            foldable[node.meta["address"]] = _Foldable(node, segments, tuple(str(user.target) for user in node.users))
    return foldable


def _expanded_from(node: fx.Node) -> str:
    """The thin skip whose directions a call spreads to all channels; empty if it does not."""
    return str(node.meta["thin"]) if node.meta.get("function") == "expand" and "thin" in node.meta else ""


def _takes_any_channels(network: Rewired, user: fx.Node) -> bool:
    """Whether a call is one of a convolution without groups."""
    reader = network.get_submodule(str(user.target)) if user.op == "call_module" else None
    return isinstance(reader, nn.modules.conv._ConvNd) and reader.groups == 1


def _read_directly(join: fx.Node) -> None:
    """Let a concatenation take directions in place of the channels that they are spread to."""

    expanded = list(filter(_expanded_from, tensor_arguments(join)))
    replace_tensors(join, lambda _, tensor: tensor.all_input_nodes[0] if _expanded_from(tensor) else tensor)
    for node in expanded:
        if not node.users:
            node.graph.erase_node(node)


def _fold(network: Rewired, name: str, segments: list[_Segment]) -> None:
    """Give a convolution the weights by which it reads directions."""
    convolution: Any = network.get_submodule(name)
    axis = 0 if isinstance(convolution, nn.modules.conv._ConvTransposeNd) else 1
    parts = []
    with torch.no_grad():
        pieces = convolution.weight.split([segment.channels for segment in segments], dim=axis)
        for segment, weight in zip(segments, pieces, strict=True):
            if not segment.thin:
                parts.append(weight)
                continue
            expand: Any = network.get_submodule(f"{segment.thin}.expand")
            spread = expand.weight.flatten(1)  # [channels, directions]
            parts.append(torch.tensordot(spread.to(weight), weight, dims=([0], [axis])).movedim(0, axis))
        weight = torch.cat(parts, dim=axis)
    convolution.weight = nn.Parameter(weight.contiguous(), requires_grad=convolution.weight.requires_grad)
    convolution.in_channels = weight.shape[axis]
