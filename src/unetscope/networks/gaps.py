"""Find where a network could not be followed, so that it is said rather than taken for its structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unetscope.activations import FOREIGN, Node, UnknownOrigin
from unetscope.networks.levels import Levels
from unetscope.networks.skip_detection import Join
from unetscope.networks.structure import OPAQUE, Gap, GapKind

# Operations within a script that bring streams together or change their resolution.
HIDING = {"cat", "stack", "upsample_nearest2d", "upsample_bilinear2d", "upsample_nearest3d", "upsample_trilinear3d"}

LONGEST_HEAD = 2  # convolutions of a head whose result a network throws away, such as one for deep supervision


def find_gaps(levels: Levels, joins: Sequence[Join]) -> tuple[Gap, ...]:
    """Every place where a network could not be followed."""
    gaps = [_unknown_origin(unknown) for unknown in levels.graph.unknown]
    gaps += _without_output(levels, bool(joins))
    joined = {join.number for join in joins}
    gaps += [
        gap
        for node in levels.graph.nodes
        if node.number not in joined and (gap := _hidden_join(levels, node)) is not None
    ]
    gaps += _lost_rises(levels)
    gaps += _on_other_axes(levels)
    gaps += _in_other_layouts(levels, joins)
    if not joins:
        gaps += _behind_gates(levels)
    return tuple(gaps)


def _unknown_origin(unknown: UnknownOrigin) -> Gap:
    shape = "×".join(map(str, unknown.shape))
    receiver = f"the call {unknown.address}" if unknown.address else "the output"
    since = f"; it counts as made from what left torch at {', '.join(unknown.left)}" if unknown.left else ""
    return Gap(
        GapKind.UNKNOWN_ORIGIN,
        unknown.address,
        f"{receiver} receives a tensor {shape} that no recorded call made{since}",
        "compute it with functions of torch, or in a module of its own that takes and returns tensors",
    )


def _without_output(levels: Levels, has_joins: bool) -> Iterator[Gap]:
    """Convolutions that ran without leading to the output. Those that only lead to gates do lead there.

    Where there is no join either, they are taken for a path that was lost rather than for a head.
    """
    leading = levels.graph.ancestors(levels.graph.outputs)
    passed: dict[int, int] = {}  # by tensor that leads to no output, the convolutions since one that does
    for node in levels.graph.nodes:
        if node.number not in leading:
            passed[node.number] = max((passed.get(n, 0) for n in node.inputs), default=0) + levels.is_kernel(node)
    lost = [node for node in levels.graph.nodes if levels.is_kernel(node) and node.number not in leading]
    if lost:
        is_head = has_joins and max(passed.values()) <= LONGEST_HEAD and not levels.graph.unknown
        mend = "compute what follows them with functions of torch, so that it can be followed"
        yield Gap(
            GapKind.UNUSED_HEAD if is_head else GapKind.NO_OUTPUT,
            lost[-1].place,
            f"{len(lost)} of the convolutions that ran lead to no output, the last of them {lost[-1].place}",
            "if they are heads for training alone, this is no error" if is_head else mend,
        )


def _lost_rises(levels: Levels) -> Iterator[Gap]:
    """Where a tensor has more places than what it is made from, and no function is known to have made them."""
    for number in levels.lost_rises:
        if number in levels.useful:
            node = levels.graph[number]
            sides = "×".join(map(str, levels.grid(number)))
            yield Gap(
                GapKind.LOST_RISE,
                node.place,
                f"{node.place} has {sides} places, more than what it is made from, and what raised the resolution is not known",
                "upsample with functions of torch.nn.functional, such as interpolate",
            )


def _on_other_axes(levels: Levels) -> Iterator[Gap]:
    """Convolutions of another number of sides than the image has, such as those of a signal's spectrogram."""
    kernels = [node for node in levels.graph.nodes if levels.is_kernel(node) and node.number in levels.useful]
    beside = [node for node in kernels if not levels.is_spatial(node.number)]
    if beside:
        yield Gap(
            GapKind.OTHER_AXES,
            beside[0].place,
            f"{len(beside)} convolutions that lead to the output do not have the axes of the image, the first of them "
            f"{beside[0].place} with {len(beside[0].shape) - 2} sides: what they carry is not followed",
            "to measure it, inspect a module of a few lines that takes what they read and returns what they make",
        )


def _in_other_layouts(levels: Levels, joins: Sequence[Join]) -> Iterator[Gap]:
    """Skips that are joined as tokens or with channels last, as transformers and networks of state spaces do."""
    followed = {levels.graph[join.number].address for join in joins}
    followed |= {address for join in joins for stream in (join.upsampled, *join.skips) for address, _ in stream.path}
    unfollowed = [node for node in levels.layouts.joins_elsewhere() if node.address not in followed]
    if unfollowed:
        places = ", ".join(dict.fromkeys(node.place for node in unfollowed))
        yield Gap(
            GapKind.OTHER_LAYOUT,
            unfollowed[0].place,
            f"skips join as tokens, with channels last or along other axes than those of the convolutions, at {places}: they "
            "are not among the merges",
            "join streams as [batch, channels, *sides], or name layers and skips yourself",
        )


def _hidden_join(levels: Levels, node: Node) -> Gap | None:
    """What a script or a module does inside, if streams may meet there."""
    if node.name not in OPAQUE - {FOREIGN} or node.number not in levels.useful:
        return None
    streams = {number for number in node.inputs if levels.is_spatial(number) and levels.is_placed(number)}
    if len(streams) < 2 and node.operations.isdisjoint(HIDING):
        return None
    return Gap(
        GapKind.HIDDEN_JOIN,
        node.place,
        f"streams may meet or change their resolution inside {node.place}, which cannot be looked into",
        "give the network before scripting, or written with functions of torch",
    )


def _behind_gates(levels: Levels) -> Iterator[Gap]:
    """Where what has come up only weighs other streams, or is only weighed by them, in a network without merges."""
    weighed = [*levels.gates.items(), *((node.number, n) for node in levels.graph.nodes for n in levels.choosing(node))]
    for product, gate in weighed:
        value = next((n for n in levels.value_inputs(levels.graph[product]) if n != gate), None)
        if product not in levels.useful or value is None or not levels.is_placed(gate):
            continue
        if levels.is_upsampled(gate) != levels.is_upsampled(value):
            what = "what comes up" if levels.is_upsampled(gate) else "what meets the path that comes up"
            yield Gap(
                GapKind.GATE_ONLY,
                levels.graph[product].place,
                f"{what} reaches the output only as a weight or a choice, at {levels.graph[product].place}",
                "name layers and skips yourself",
            )
