"""The output of any network as probabilities: of the foreground of binary masks, or of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unetscope.activations import tensors_in
from unetscope.base import InvalidArgument, NetworkError
from unetscope.training.scores import Task

OutputForm = Literal["probabilities", "logits"]
ENLARGED = {1: "linear", 2: "bilinear", 3: "trilinear"}  # by number of sides


@dataclass(frozen=True)
class OutputReading:
    """How a network's output is read as probabilities of the masks of a task.

    Of several tensors, as with deep supervision, the first of the highest resolution counts, and of a stack of them along the
    second axis the first. One without channels has one channel. Two channels for binary masks are those of background and
    foreground. A smaller output is enlarged as PyTorch interpolates, before it becomes probabilities.

    task: what the masks hold. form: whether the network gives probabilities, or logits (which become probabilities by a
    sigmoid, or over several channels by a softmax).

    >>> reading = OutputReading(Task(), "logits")
    >>> reading([torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4)], (8, 8)).shape
    torch.Size([1, 1, 8, 8])
    >>> reading(torch.tensor([[[[0.0]], [[math.log(3)]]]]), (1, 1))                       # two channels: background, foreground
    tensor([[[[0.7500]]]])
    """

    task: Task
    form: OutputForm = "probabilities"

    def __call__(self, output: Any, sides: Sequence[int]) -> Float[Tensor, "b classes *sides"]:
        """Probabilities at every pixel of masks with these sides.

        Raises: NetworkError for an output without a tensor of images, InvalidArgument for other channels than the task needs.
        """
        return self._probabilities(main_tensor(output, len(sides)), sides)

    def at_every_resolution(self, output: Any, sides: Sequence[int]) -> list[Float[Tensor, "b classes *own_sides"]]:
        """Probabilities of every tensor of images of an output, the largest first, each at its own resolution: of a network
        that predicts masks at several depths.

        Raises: as a call, for each of them.

        >>> reading = OutputReading(Task(), "logits")
        >>> predictions = [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 4, 4)]
        >>> [list(each.shape) for each in reading.at_every_resolution(predictions, (4, 4))]
        [[1, 1, 4, 4], [1, 1, 2, 2]]
        """
        return [self._probabilities(values, values.shape[2:]) for values in image_tensors(output, len(sides))]

    def _probabilities(self, values: Float[Tensor, "b c *sides"], sides: Sequence[int]) -> Tensor:
        of_two = self.task.outputs == 1 and values.shape[1] == 2
        if values.shape[1] != self.task.outputs and not of_two:
            needed = "1 or 2" if self.task.outputs == 1 else str(self.task.outputs)
            raise InvalidArgument(
                f"the network has {values.shape[1]} output channels, masks of {self.task.classes} classes need {needed}"
            )
        if values.shape[2:] != torch.Size(sides):
            values = functional.interpolate(values, tuple(sides), mode=ENLARGED[len(sides)], align_corners=False)
        if self.form == "logits":
            values = values.sigmoid() if values.shape[1] == 1 else values.softmax(dim=1)
        return values[:, 1:] if of_two else values


def main_tensor(output: Any, sides: int) -> Float[Tensor, "b c *sides"]:
    """The first of the largest tensors of an output that are [batch, channels, *sides], or [batch, *sides] without channels, or
    [batch, outputs, channels, *sides] as a stack.

    Raises: NetworkError if there is none.
    """
    return image_tensors(output, sides)[0]


def _shape_text(tensor: Tensor) -> str:
    """The shape of a tensor, with its type where that is none of floats."""
    of = "" if tensor.is_floating_point() else f" of {str(tensor.dtype).removeprefix('torch.')}"
    return f"{list(tensor.shape)}{of}"


def image_tensors(output: Any, sides: int) -> list[Float[Tensor, "b c *sides"]]:
    """All of these, the largest first, and those of one size in their order.

    Raises: NetworkError if there is none.
    """
    if isinstance(output, Tensor) and output.is_floating_point() and output.ndim == sides + 2:
        return [output]
    as_images = {
        sides + 1: lambda values: [values[:, None]],
        sides + 2: lambda values: [values],
        sides + 3: lambda stack: list(stack.unbind(dim=1)),
    }
    images = [
        image
        for tensor in tensors_in(output)
        if tensor.is_floating_point() and tensor.ndim in as_images
        for image in as_images[tensor.ndim](tensor)
    ]
    if not images:
        shapes = ", ".join(map(_shape_text, tensors_in(output))) or "no tensor"
        raise NetworkError(
            f"the network gives {shapes}: expected floats [batch, channels, {', '.join(['side'] * sides)}], one value a pixel "
            "and class"
        )
    return sorted(images, key=lambda image: -math.prod(image.shape[2:]))
