"""Small networks in the ways that people write them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def random_image(*shape: int, seed: int = 0) -> Tensor:
    """One image of a shape, [1, *shape], the same for every call with a seed."""
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))


def block(before: int, after: int, padding: int = 1) -> nn.Sequential:
    """Two convolutions with normalisation, in place, and dropout."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=padding),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.2),
        nn.Conv2d(after, after, 3, padding=padding),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class Padded(nn.Module):
    """Upsampling by interpolation, padded where sizes do not fit: the most copied U-Net there is. Three merges."""

    def __init__(self, channels: int = 3, classes: int = 1, width: int = 4) -> None:
        super().__init__()
        self.down = nn.ModuleList(block(channels if k == 0 else width * 2 ** (k - 1), width * 2**k) for k in range(4))
        self.up = nn.ModuleList(block(width * 2**k * 3, width * 2**k) for k in reversed(range(3)))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, channels, h, w] to logits [b, classes, h, w]."""
        carried = []
        for k, down in enumerate(self.down):
            x = down(x if k == 0 else functional.max_pool2d(x, 2))
            carried.append(x)
        for up, skip in zip(self.up, carried[-2::-1], strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            rest = [skip.shape[axis] - x.shape[axis] for axis in (3, 2)]
            x = functional.pad(x, [part for side in rest for part in (side // 2, side - side // 2)])
            x = up(torch.cat([skip, x], dim=1))  # the skip first
        return self.head(x)


class Cropped(nn.Module):
    """Convolutions without padding and cropped skips, as in 2015. Two merges."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(1, 4, 0), block(4, 8, 0), block(8, 16, 0)
        self.up_b, self.up_a = nn.ConvTranspose2d(16, 8, 2, 2), nn.ConvTranspose2d(8, 4, 2, 2)
        self.d, self.e, self.head = block(16, 8, 0), block(8, 4, 0), nn.Conv2d(4, 2, 1)

    @staticmethod
    def crop(skip: Tensor, like: Tensor) -> Tensor:
        """The middle of the skip."""
        top, left = ((skip.shape[axis] - like.shape[axis]) // 2 for axis in (2, 3))
        return skip[:, :, top : top + like.shape[2], left : left + like.shape[3]]

    def forward(self, x: Tensor) -> Tensor:
        """[b, 1, h, w] to logits of two classes, of less height and width."""
        a = self.a(x)
        b = self.b(functional.max_pool2d(a, 2))
        u = self.up_b(self.c(functional.max_pool2d(b, 2)))
        u = self.up_a(self.d(torch.cat((u, self.crop(b, u)), 1)))
        return self.head(self.e(torch.cat((u, self.crop(a, u)), 1)))


class Supervised(Padded):
    """Gives out a prediction at every level, as for deep supervision, in a dictionary. Three merges."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Conv2d(4 * 2**k, 1, 1) for k in reversed(range(3)))

    def forward(self, x: Tensor) -> dict[str, Tensor | list[Tensor]]:  # type: ignore[override]
        """[b, 3, h, w] to logits at full resolution, and those of every level."""
        carried, predictions = [], []
        for k, down in enumerate(self.down):
            x = down(x if k == 0 else functional.max_pool2d(x, 2))
            carried.append(x)
        for up, skip, head in zip(self.up, carried[-2::-1], self.heads, strict=True):
            x = up(torch.cat([skip, functional.interpolate(x, scale_factor=2.0)], dim=1))
            predictions.append(head(x))
        return {"aux": predictions, "out": self.head(x)}


class SubPixel(nn.Module):
    """Rises by turning channels into places with views, adds its skip in place, and gates it. One merge."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 16, 3, stride=2, padding=1)
        self.gate, self.head = nn.Conv2d(4, 1, 1), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, 1, h, w] to logits."""
        a = self.a(x).relu_()
        b = torch.relu(self.b(a))
        n, c, h, w = b.shape
        up = b.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)
        up += a * torch.sigmoid(self.gate(a + up))
        return self.head(up)


class Joined(nn.Module):
    """Two levels, one skip, joined in one of many ways. One merge."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.up, self.head = nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, 1, h, w] to logits."""
        a = torch.relu(self.a(x))
        up = self.up(torch.relu(self.b(a)))
        joined = {
            "stacked": lambda: torch.stack([a, up]).sum(0),
            "mean": lambda: 0.5 * (a + up),
            "by name": lambda: torch.add(input=up, other=a),
            "largest": lambda: torch.maximum(a, up),
            "difference": lambda: a - up,
            "channel": lambda: a + up.mean(dim=1, keepdim=True),
        }
        return self.head(joined[self.how]())


def beside(up: Tensor, skip: Tensor) -> Tensor:
    """The usual concatenation."""
    return torch.cat([skip, up], 1)


class TwoLevels(nn.Module):
    """Eight convolutions on three resolutions. join: of the upsampled stream and the skip. up: in place of kernels. Two merges.

    doubling: whether the join has the channels of both.
    """

    def __init__(
        self,
        join: Callable[[Tensor, Tensor], Tensor] = beside,
        up: Callable[[Tensor], Tensor] | None = None,
        doubling: bool = True,
    ) -> None:
        super().__init__()

        def convolved(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())

        self.join, self.up, more = join, up, 1 + doubling
        self.e1, self.e2, self.b, self.pool = convolved(3, 8), convolved(8, 16), convolved(16, 32), nn.MaxPool2d(2)
        self.u2, self.u1 = (
            (nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2))
            if up is None
            else (nn.Conv2d(32, 16, 1), nn.Conv2d(16, 8, 1))
        )
        self.d2, self.d1, self.out = convolved(16 * more, 16), convolved(8 * more, 8), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, 3, h, w] to logits."""
        a = self.e1(x)
        c = self.e2(self.pool(a))
        u = self.u2(self.b(self.pool(c)))
        y = self.d2(self.join(u if self.up is None else self.up(u), c))
        u = self.u1(y)
        return self.out(self.d1(self.join(u if self.up is None else self.up(u), a)))


class Deciding(Padded):
    """Decides by the image, which no exported program can. Three merges."""

    def forward(self, x: Tensor) -> Tensor:
        """[b, 3, h, w] to logits; dark images are turned."""
        return super().forward((1 - x) ** 1.0 if float(x.mean()) < 0.5 else x.mT.mT / 1)


class Residual(nn.Module):
    """Residual blocks that rise on both ways and none that is a skip. No merge."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.rising = Rising(4)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, 1, h, w] to logits."""
        return self.head(self.rising(self.down(x)))


class Rising(nn.Module):
    """A residual block that doubles the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.way, self.short = nn.ConvTranspose2d(width, width, 2, 2), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[b, width, h, w] to [b, width, 2h, 2w]."""
        return torch.relu(self.way(x)) + functional.interpolate(self.short(x), scale_factor=2)
