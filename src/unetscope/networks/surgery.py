"""Leave skips and levels out of a network for good: record it, cut it, and hold it against the network with zeros instead."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from unetscope.activations import unwrap_model
from unetscope.base import InvalidArgument, NetworkError, preserve_rng
from unetscope.networks.equality import (
    as_double,
    differ,
    draws_at_random,
    example_of,
    held_to_sides,
    network_outputs,
    note_of_sides,
    program_outputs,
    read_values,
    recorded_and_checked,
    refuse_fixed_batch,
)
from unetscope.networks.leaving_out import WithoutStreams, positions_of, silenced
from unetscope.networks.live_calls import ancestors, remove_dead_calls
from unetscope.networks.masks import Read, WeightEdit
from unetscope.networks.outputs import keep_outputs, main_output, output_leaves, simplify
from unetscope.networks.program import place, record_program
from unetscope.networks.rewired import Rewired, Step, cut_weights
from unetscope.networks.structure import Operand, Structure

MODES = (False, True)  # evaluation, training
CONSTANT = 1e-6  # of its value, by how much a constant may vary by rounding


def without_skips(model: nn.Module, structure: Structure, skips: str | Collection[str]) -> Rewired:
    """A network without some of its skips and without the weights that read them: `without` for skips alone.

    >>> from unetscope.networks.inspection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, x = UNet(2, depth=2), torch.rand(1, 3, 16, 16)
    >>> smaller = without_skips(model, inspect(model, x), ["skip1"])
    >>> networks = model, smaller, UNet(2, depth=2, without=["skip1"])
    >>> [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    [1919, 1883, 1883]
    """
    return without(model, structure, *([skips] if isinstance(skips, str) else skips))


@preserve_rng()
def without(model: nn.Module, structure: Structure, *parts: str, constants: Mapping[str, str] | None = None) -> Rewired:
    """A network without some of its skips and levels, to train or to fine-tune. The original is left unchanged.

    Leaving out a skip drops the stream S at its merge; leaving out a level drops the upsampled stream U there. Whatever then no
    longer leads to the output is gone: modules, weights and calls. Whatever reads a concatenation keeps the weights that read
    the other streams; a call that mixes channels of both, such as a group norm whose groups cross them, gets zeros instead. A
    product goes as a whole, with all that feeds its other factor alone. Outputs of deep supervision that hung on what is left
    out go too.

    The result equals the network with zeros in the place of these streams, to 1e-6 of the largest value. This is checked before
    it is returned: on the example and on random images, in both modes, in float64, without dropout. `notes` of the result say
    what could not be kept or checked. It shares no weight, buffer or memory with the original.

    constants: as an earlier result says of itself, to build one of the same weights from other values.

    Raises: NetworkError for an unknown part; for a network that no program can follow; for a call that mixes
    channels of streams that stay with those that go, if these are not zero there; if the result is not equal. The text names
    the call.

    >>> from unetscope.networks.inspection import inspect
    >>> from unetscope.networks.unet import UNet
    >>> model, x = UNet(2, depth=2), torch.rand(1, 3, 16, 16)
    >>> smaller = without(model, inspect(model, x), "level2")
    >>> sum(parameter.numel() for parameter in smaller.parameters()), smaller.training
    (763, True)
    """
    names = tuple(dict.fromkeys(parts))
    if not names:
        raise InvalidArgument("no part to leave out is named: expected a skip or a level, such as skip1 or level2")
    streams = {name: structure.stream_of(name) for name in names}
    return _Surgery(unwrap_model(model), structure, streams, constants).smaller()


class _Surgery:
    """The steps from a network to a smaller one. By mode, `True` for training, they keep its programs and their edits."""

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        streams: Mapping[str, Operand],
        constants: Mapping[str, str] | None,
    ) -> None:
        example = example_of(structure)
        self._model, self._streams, self._constants = model, streams, constants
        self._notes: list[str] = []
        self._kept_as: dict[str, str] = {}  # constants, by module
        self._trains_equally = True
        self._dropped: dict[bool, list[int]] = {}  # outputs that are gone, by their order
        recorded_on, self._checked_on = recorded_and_checked(model, example)
        self._programs = {mode: record_program(model, recorded_on, training=mode) for mode in MODES}
        modules = {**self._programs[True].modules, **self._programs[False].modules}
        attributes = {**self._programs[True].attributes, **self._programs[False].attributes}
        frozen = self._programs[True].graph.output_node().meta["frozen"]
        self._result, self._whole = (Rewired(modules, attributes, frozen, example) for _ in range(2))

    def smaller(self) -> Rewired:
        """The network without the streams."""
        edits, zeroed = {}, {}
        for mode, program in self._programs.items():
            positions = positions_of(program, self._streams.values())
            zeroed[mode] = silenced(program, positions)
            edits[mode] = WithoutStreams(program, self._result.get_submodule, positions)
        graphs = {mode: graph for mode, (graph, _) in zeroed.items()}
        self._whole.set_code(graphs)
        self._check_recording()
        for mode, program in self._programs.items():
            main = main_output(program.graph, self._programs[False].graph)
            before = ancestors(program.graph, [main])
            edits[mode].follow()
            self._note_zeros(edits[mode])
            self._drop_outputs(program.graph, graphs[mode], before, main)
        self._cut_weights(edits, zeroed)
        for program in self._programs.values():
            if lost := remove_dead_calls(program.graph, self._result.get_submodule):
                self._note(note_of_sides(self._checked_on, f"it needs a size of {lost}, which is gone"))
            simplify(program.graph, self._result.get_submodule)
        self._result.set_code({mode: program.graph for mode, program in self._programs.items()})
        self._whole.set_code(graphs)
        if self._constants is None:
            self._check_result()
            example = self._result.surgery_record.example
            refuse_fixed_batch(self._result, self._silenced_outputs(example))
        if note := held_to_sides(self._result, self._whole, self._programs, self._silenced_outputs, self._checked_on):
            self._note(note)
        kept = dict(self._result.named_parameters()) | dict(self._result.named_buffers())
        if outside := sorted(name for name in kept if name.startswith("outside_")):
            self._notes.append(f"tensors that the original does not register are {', '.join(outside)} here")
        step = Step(left_out=tuple(self._streams), constants=self._kept_as)
        self._result.surgery_record.add(step, self._notes, self._model)
        return self._result.train(self._model.training)

    def _note_zeros(self, edits: WithoutStreams) -> None:
        if edits.shared:
            self._note(
                f"{', '.join(dict.fromkeys(edits.shared))} is called more than once, or its weights are used elsewhere too: it "
                "gets zeros in the place of what is left out, and its weights stay"
            )
        if edits.zero_fed:
            self._note(
                f"{', '.join(dict.fromkeys(edits.zero_fed))} mixes channels of what stays with those of what is left out, and "
                "gets zeros in their place: the weights that read them stay"
            )

    def _note(self, note: str) -> None:
        self._notes += [note] * (note not in self._notes)

    def _check_recording(self) -> None:
        """Refuse a network that the recording does not follow."""
        for training in MODES:
            expected = network_outputs(self._model, self._streams, self._checked_on, training)
            # PyTorch's modules of attention compute in another order where there are no gradients.
            difference = differ(program_outputs(self._whole, self._checked_on, training), expected, 1e-5)
            if difference:
                mode = "training" if training else "evaluation"
                raise NetworkError(
                    f"the network's calls of torch in {mode} mode, recorded, give another output than it does on new images "
                    f"({difference}): it computes or keeps something outside of torch; ablate it instead"
                )

    # Outputs that hung on what is left out.

    def _drop_outputs(self, graph: fx.Graph, zeroed: fx.Graph, before: set[fx.Node], main: fx.Node) -> None:
        """Drop further outputs that branch off from what led to the main one and no longer does."""
        after, leaves = ancestors(graph, [main]), output_leaves(graph)
        dropped = []
        for index, leaf in enumerate(leaves):
            sources = ancestors(graph, [leaf])
            branches = {
                node
                for node in sources & before
                if node is leaf or any(user in sources and user not in before for user in node.users)
            }
            if leaf is not main and branches and not branches & after:
                dropped.append(index)
        if dropped:
            names = ", ".join(leaves[index].meta.get("address", leaves[index].name) for index in dropped)
            self._note(f"outputs of what is left out are gone: {names}")
            for each in (graph, zeroed):
                keep_outputs(each, set(range(len(leaves))) - set(dropped))
            self._dropped[graph is self._programs[True].graph] = dropped

    # Weights.

    def _cut_weights(
        self, edits: Mapping[bool, WithoutStreams], zeroed: Mapping[bool, tuple[fx.Graph, dict[fx.Node, fx.Node]]]
    ) -> None:
        """Take the weights of channels that went, and keep what they made of constants."""
        weights = dict(edits[False].weights)
        called = [{str(n.target) for n in edits[mode].graph.nodes if n.op == "call_module"} for mode in MODES]
        for name in edits[True].weights.keys() ^ weights.keys():
            if all(name in names for names in called):
                raise NetworkError(
                    f"the weights of {name} are used more than once in one mode alone: no skip can be removed before it"
                )
        for name, edit in edits[True].weights.items():
            if weights.setdefault(name, edit) != edit:
                raise NetworkError(
                    f"{name} reads other channels in training mode: no skip can be removed, ablate it instead"
                )
        for mode in MODES:
            graph, counterparts = zeroed[mode]
            reads = [
                (counterparts[read.node], counterparts[_original(read.source)], read.mask.axis, read.mask.gone)
                for read in edits[mode].reads
            ]
            ranges = read_values(self._whole, graph, reads, self._checked_on, mode)
            for read, values in zip(edits[mode].reads, ranges, strict=True):
                self._fold(read, values, weights, mode)
        for mode in MODES:
            for read in edits[mode].reads:
                if read.node.op == "call_module" and weights.get(str(read.node.target), WeightEdit()).as_channel:
                    edits[mode].append_ones(read)
        for name, edit in weights.items():
            module = self._result.get_submodule(name)
            _refuse_tied(self._result, name, module)
            cut_weights(module, edit)

    def _fold(
        self, read: Read, values: tuple[tuple[float, float], ...], weights: dict[str, WeightEdit], training: bool
    ) -> None:
        """Keep what a call made of channels that are constant where a stream is zero, after a normalisation."""
        if all(low == high == 0 for low, high in values):
            constants: tuple[tuple[int, float], ...] = ()
        elif read.may_be_constant and all(high - low <= CONSTANT * max(abs(low), abs(high)) for low, high in values):
            means = [(low + high) / 2 for low, high in values]
            constants = tuple(zip(read.mask.gone, means, strict=True))
        else:
            how = "neither zero nor constant" if read.may_be_constant else "that are not zero"
            raise NetworkError(
                f"what a part carries reaches {place(read.node)} as values {how} where it is zero: no skip can be removed "
                "before it, ablate it instead"
            )
        if not read.may_be_constant:
            return
        name = str(read.node.target)
        edit = weights[name]
        if self._constants is not None:  # an earlier result, whose weights are yet to come
            if not training and name in self._constants:
                zeros = tuple((index, 0.0) for index in read.mask.gone)
                weights[name] = replace(edit, folded=zeros, as_channel=self._constants[name] == "channel")
                self._kept_as[name] = self._constants[name]
            return
        if training:
            folded = dict(edit.folded)
            if any(abs(value - folded.get(index, 0.0)) > CONSTANT * abs(value) for index, value in constants) or (
                folded and not constants
            ):
                self._unequal_in_training(name)
            return
        if constants:
            module: Any = self._result.get_submodule(name)
            padded = isinstance(module, nn.modules.conv._ConvNd) and (
                isinstance(module, nn.modules.conv._ConvTransposeNd)
                or module.padding not in ("valid", (0,) * len(module.kernel_size))
            )
            weights[name] = replace(edit, folded=constants, as_channel=padded)
            self._kept_as[name] = "channel" if padded else "bias"
            self._notes.append(
                f"where it is zero, what is left out reaches {name} as constants, through a normalisation: they are kept as "
                + ("one channel of ones" if padded else "its bias")
            )

    def _unequal_in_training(self, name: str) -> None:
        self._trains_equally = False
        self._notes.append(
            f"{name} gets other constants in training mode, from the statistics of zeros: the network keeps those of "
            "evaluation mode, and equals the one with zeros in that mode alone"
        )

    # Checks of the result.

    def _check_result(self) -> None:
        """Refuse a result that is not the network with zeros in the place of the streams."""
        result, whole = copy.deepcopy(self._result).double(), copy.deepcopy(self._whole).double()
        inputs = as_double(self._checked_on)
        for training in MODES:
            if training and not self._trains_equally:
                continue
            if training and (call := draws_at_random(self._programs[True].graph)):
                self._notes.append(f"{call} draws at random in training mode, where equality is not checked")
                continue
            try:
                difference = _difference(result, whole, inputs, training)
            except RuntimeError:  # of networks that name float32 in their code
                result, whole, inputs = self._result, self._whole, self._checked_on
                difference = _difference(result, whole, inputs, training)
            if difference:
                mode = "training" if training else "evaluation"
                raise NetworkError(
                    f"without {', '.join(self._streams)} the smaller network would differ in {mode} mode from the network with "
                    f"zeros instead ({difference}): ablate it instead"
                )
        original = {tensor.untyped_storage()._cdata for tensor in (*self._model.parameters(), *self._model.buffers())}
        if any(value.untyped_storage()._cdata in original for value in self._result.state_dict().values()):
            raise NetworkError(
                "the smaller network would share weights with the original: this is a mistake of unetscope"
            )

    def _silenced_outputs(self, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
        """What the original gives with zeros in the place of the streams, without the outputs that are gone."""
        outputs = network_outputs(self._model, self._streams, inputs, training=False)
        return [tensor for index, tensor in enumerate(outputs) if index not in self._dropped.get(False, ())]


def _difference(result: nn.Module, whole: nn.Module, inputs: tuple[Any, ...], training: bool) -> str:
    """By how much a smaller program differs from the silenced one, as text; empty if it does not."""
    expected = program_outputs(whole, inputs, training)
    return differ(program_outputs(result, inputs, training), expected)


def _original(node: fx.Node) -> fx.Node:
    """The node of the recording whose channels a node has."""
    return node.meta.get("stands_for", node)  # type: ignore[no-any-return]


def _refuse_tied(network: nn.Module, name: str, module: nn.Module) -> None:
    """Refuse a module whose weights are another's too. Raises: NetworkError."""
    own = {id(parameter) for parameter in module.parameters(recurse=False)}
    for other_name, other in network.named_modules(remove_duplicate=False):
        if other is not module and own & {id(parameter) for parameter in other.parameters(recurse=False)}:
            raise NetworkError(
                f"{name} shares its weights with {other_name or 'the network'}, so no skip can be removed before it: "
                "ablate it instead"
            )
