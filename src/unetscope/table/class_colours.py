"""The colours of classes in figures and on the page: one for each, and one for what is ignored."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Kelly's colours of greatest contrast ("Twenty-two colors of maximum contrast", Color Engineering 3:26, 1965), without white,
# which is what is ignored, and without grey.
KELLY = (
    "#222222",
    "#F3C300",
    "#875692",
    "#F38400",
    "#A1CAF1",
    "#BE0032",
    "#C2B280",
    "#008856",
    "#E68FAC",
    "#0067A5",
    "#F99379",
    "#604E97",
    "#8DB600",
    "#B3446C",
    "#DCD300",
    "#882D17",
    "#F6A600",
    "#654522",
    "#E25822",
    "#2B3D26",
)
IGNORED = "#FFFFFF"
GOLDEN = (5**0.5 - 1) / 2  # of a turn, between the hues of neighbouring classes


def class_colour(label: int) -> str:
    """The colour of a class, as #rrggbb.

    >>> class_colour(1), class_colour(20) in KELLY
    ('#F3C300', False)
    """
    if label < len(KELLY):
        return KELLY[label]
    hue = (label * GOLDEN) % 1.0
    rgb = colorsys.hls_to_rgb(hue, (0.35, 0.5, 0.65)[label % 3], 0.6)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)


@dataclass(frozen=True)
class ClassMap:
    """How the masks of a run are read. classes: how many. ignored: the value of pixels without a class."""

    classes: int
    ignored: int | None = None

    def coloured(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Labels [h, w] as colours [h, w, 3].

        >>> ClassMap(2, ignored=9).coloured(np.array([[0, 9]], np.uint8)).tolist()
        [[[34, 34, 34], [255, 255, 255]]]
        """
        table = np.full((256, 3), _rgb(IGNORED), np.uint8)
        for label in range(self.classes):
            table[label] = _rgb(class_colour(label))
        return table[labels]

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Each class, and what is ignored, with its colour."""
        classes = tuple((f"class {label}", class_colour(label)) for label in range(self.classes))
        return classes if self.ignored is None else (*classes, ("ignored", IGNORED))


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
