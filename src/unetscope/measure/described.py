"""Which layers and skips of a network are measured: those asked for, those it describes itself, or those found in it."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import Tensor, nn

from unetscope.activations.inference import as_input
from unetscope.base.errors import InvalidArgument, NetworkError, nearest
from unetscope.networks.inspection import inspect
from unetscope.table.records import Layer, Skip


def described_layers(
    model: nn.Module, layers: Sequence[Layer | str] | None, skips: Sequence[Skip] | None, example: Tensor
) -> tuple[tuple[Layer, ...], tuple[Skip, ...]]:
    """The layers and skips asked for, or those that the model itself describes, or those that are found in it."""
    own = getattr(model, "layers", None)
    if layers is None and not (isinstance(own, tuple) and own and all(isinstance(layer, Layer) for layer in own)):
        structure = inspect(model, as_input(model, example))
        return structure.layers, structure.skips if skips is None else tuple(skips)
    if layers is None:
        assert own is not None
        return own, tuple(skips if skips is not None else getattr(model, "skips", ()))
    if not layers:
        raise InvalidArgument("layers is empty: name at least one module")
    modules = [name for name, _ in model.named_modules() if name]
    chosen: dict[str, Layer] = {}
    for layer in layers:
        names = fnmatch.filter(modules, layer) if isinstance(layer, str) and set(layer) & set("*?[") else [layer]
        if not names:
            raise NetworkError(f"no module matches {layer!r}: {nearest(str(layer), modules)}")
        for name in names:
            record = Layer(name, name) if isinstance(name, str) else name
            chosen.setdefault(record.label, record)
    if skips is None:
        ends = {layer.label for layer in chosen.values()}
        skips = [skip for skip in getattr(model, "skips", ()) if {skip.source, skip.upsampled, skip.merge} <= ends]
    return tuple(chosen.values()), tuple(skips)


def checked_skips(skips: Sequence[Skip], layers: Sequence[Layer]) -> tuple[Skip, ...]:
    """The skips, all of whose ends are layers. Raises: NetworkError for one that is not, with the nearest labels."""
    labels = [layer.label for layer in layers]
    for skip in skips:
        for end in (skip.source, skip.upsampled, skip.merge):
            if end not in labels:
                raise NetworkError(f"{skip.name} names layer {end!r}, which is not measured: {nearest(end, labels)}")
    return tuple(skips)
