"""Move values of which some channels went, and give zeros to what cannot do without them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from unetscope.base import NetworkError
from unetscope.networks.masks import Mask, Read, WeightEdit, cut_positions, is_what_is_left, standing_for
from unetscope.networks.program import place


class MixesChannelsError(Exception):
    """What a call makes of some channels depends on others, so that it needs zeros where they went."""


@dataclass
class ChannelEdits:
    """The edits of one program. modules: by name, of the smaller network, not yet edited.

    masks: by tensor, what it has left. weights: by module. reads: in order. zero_fed: the calls that mix channels,
    and get zeros in the place of those that went. shared: those of modules whose weights others read, which get zeros too.
    """

    graph: fx.Graph
    modules: Callable[[str], nn.Module]
    masks: dict[fx.Node, Mask] = field(default_factory=dict)
    weights: dict[str, WeightEdit] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    empty: set[fx.Node] = field(default_factory=set)  # tensors of which nothing is left
    zero_fed: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)

    def _keep_size(self, node: fx.Node) -> None:
        """The network's code goes on with the size that it knows."""
        source, axis = node.args
        if axis == self.masks[source].axis:  # type: ignore[index]
            node.replace_all_uses_with(node.meta["value"])

    def _refusal(self, node: fx.Node, why: str = "it mixes channels") -> NetworkError:
        joins = ", ".join(dict.fromkeys(place(each) for each in self.masks if each.meta.get("join")))
        return NetworkError(
            f"what is joined at {joins} goes through {place(node)}, so no skip can be removed from it: ablate it instead "
            f"({why})"
        )

    def _lose(self, tensor: fx.Node, mask: Mask) -> None:
        self.masks[tensor] = mask
        if not any(mask.kept):
            self.empty.add(tensor)

    def _move(self, node: fx.Node, source: fx.Node) -> Mask | None:  # noqa: PLR0912 (unchanged, a cut, or neither)
        """Values at other places: where each channel goes is seen by moving numbers that are different in each channel."""
        mask, shape = self.masks[source], source.meta["shape"]
        tags = torch.rand(len(mask.kept), dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
        spread = tags.reshape([-1 if axis == mask.axis else 1 for axis in range(len(shape))]).expand(shape).clone()
        parts = [user for user in node.users if "part" in user.meta and user.target is operator.getitem]
        results = self._run(node, source, spread)
        if results is None:
            raise MixesChannelsError
        small = spread.index_select(mask.axis, torch.tensor(mask.indices))
        unchanged = self._run(node, source, small)
        moved: list[tuple[fx.Node, Mask | None, list[int] | None]] = []
        for part in parts or [node]:
            result = results[part.meta["part"]] if parts else results
            new_mask = self._moved_mask(node, result, tags, mask)
            positions = cut_positions(result, spread, mask)
            moved.append((part, new_mask, positions))
        is_cut = all(positions is not None for _, _, positions in moved)
        as_many = unchanged is not None and (not parts or len(unchanged) == len(results))
        if as_many and all(
            is_what_is_left(
                unchanged[part.meta["part"]] if parts else unchanged,
                results[part.meta["part"]] if parts else results,
                new_mask,
            )
            for part, new_mask, _ in moved
        ):
            for part, new_mask, _ in moved:
                if new_mask is not None:
                    self._lose(part, new_mask)
            return self.masks.get(node)
        if is_cut:  # along the axis
            for part, new_mask, positions in moved:
                remaining = [mask.indices.index(k) for k in positions or () if mask.kept[k]]
                if not remaining and new_mask is not None:
                    self._lose(part, new_mask)
                    continue
                with self.graph.inserting_before(part):
                    cut = self._selected(source, mask.axis, remaining, part)
                part.replace_all_uses_with(cut)
                if new_mask is not None:
                    self.masks[cut] = new_mask
            return None
        self._refill_all(node)
        for part, new_mask, _ in moved:
            if new_mask is not None and not any(new_mask.kept):
                self._lose(part, new_mask)
            elif new_mask is not None:
                users = dict.fromkeys(part.users)
                with self.graph.inserting_before(part.next):
                    cut = self._selected(part, new_mask.axis, new_mask.indices)
                for user in users:
                    user.replace_input_with(part, cut)
                self.masks[cut] = new_mask
        return None

    def _moved_mask(self, node: fx.Node, result: Tensor, tags: Tensor, mask: Mask) -> Mask | None:
        """Along which axis of a result the channels that went now lie; None if it holds none of them."""
        order = tags.argsort()
        nearest = torch.searchsorted(tags[order], result.contiguous() - 1e-9).clamp(max=len(tags) - 1)
        sources = order[nearest]
        if not torch.allclose(tags[sources], result, atol=1e-9, rtol=0):
            raise MixesChannelsError
        kept = torch.tensor(mask.kept)[sources]
        if bool(kept.all()):
            return None
        for axis in sorted(range(result.ndim), key=lambda axis: axis != mask.axis):
            columns = kept.movedim(axis, 0).flatten(1)
            counts_images = axis == 0 and len(columns) != len(tags)  # of which there may be another number
            if bool((columns == columns[:, :1]).all()) and not counts_images:
                return Mask(axis, tuple(columns[:, 0].tolist()))
        raise MixesChannelsError

    def _run(self, node: fx.Node, source: fx.Node, tags: Tensor) -> Any:
        """What a call makes of tags; None if it does not take them."""

        def value(argument: Any) -> Any:
            return tags if argument is source else argument.meta.get("value")

        args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
        try:
            if node.op == "call_module":
                return self.modules(str(node.target))(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            return node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception:  # whatever a function makes of a shape that is not its own
            return None

    def _selected(self, tensor: fx.Node, axis: int, indices: list[int], like: fx.Node | None = None) -> fx.Node:
        """Some indices of an axis, before the point of insertion."""
        first, length = indices[0], len(indices)
        if indices == list(range(first, first + length)):
            node = self.graph.call_method("narrow", (tensor, axis, first, length))
        else:
            node = self.graph.call_function(torch.index_select, (tensor, axis, self._index(indices, tensor)))
        return standing_for(node, like or tensor)

    def _index(self, indices: list[int], like: fx.Node) -> fx.Node:
        device = self.graph.call_function(getattr, (like, "device"))
        return self.graph.call_function(torch.tensor, (indices,), {"device": device, "dtype": torch.int64})

    def _feed_zeros(self, node: fx.Node) -> None:
        """Let a call that mixes channels have zeros where they went. Raises: NetworkError for one that writes in place."""
        if node.meta["writes"]:
            raise self._refusal(node, "it mixes channels")
        self._refill_all(node)
        self.zero_fed.append(place(node))

    def _refill_all(self, node: fx.Node) -> None:
        """Give a call zeros where channels went, for what cannot do without."""
        for source in list(node.all_input_nodes):
            if (mask := self.masks.get(source)) is None:
                continue
            self.reads.append(Read(node, source, mask, may_be_constant=False))
            with self.graph.inserting_before(node):
                first = self.graph.call_method("narrow", (source, mask.axis, 0, 1))
                zero = self.graph.call_function(torch.zeros_like, (first,))
                repeats = [len(mask.gone) if axis == mask.axis else 1 for axis in range(len(source.meta["shape"]))]
                zeros = self.graph.call_method("repeat", (zero, *repeats))
                both = self.graph.call_function(torch.cat, ([source, zeros], mask.axis))
                order = sorted(range(len(mask.kept)), key=(mask.indices + mask.gone).__getitem__)
                whole = self._selected(both, mask.axis, order, source)
            node.replace_input_with(source, whole)

    def append_ones(self, read: Read) -> None:
        """Give a call one more channel, of ones, for the constants that it read."""
        axis = read.mask.axis
        with self.graph.inserting_before(read.node):
            first = self.graph.call_method("narrow", (read.source, axis, 0, 1))
            ones = self.graph.call_function(torch.ones_like, (first,))
            both = self.graph.call_function(torch.cat, ([read.source, ones], axis))
        read.node.replace_input_with(read.source, both)
