"""Drawn images of cell nuclei with their exact masks, for tests and first tries.

A scene is laid out in units, 128 by 128 of them to the image whatever its pixels (as many in area if it is not square),
and then rendered: one seed shows the same nuclei at every size, only finer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unetscope.base import InvalidArgument
from unetscope.data.segmentation import GREY_WEIGHTS, SegmentationData

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

KINDS: Final = ("fluorescence", "stained", "bright-field")
OPENING_COUNTS: Final = (4, 2, 2)
"""How many of each kind are among the first 8 images, so that a small set shows them all."""
BLOCK_COUNTS: Final = (20, 4, 1)
"""How many of each kind are in every 25 images after that: 80 %, 16 % and 4 %, as in the 2018 Data Science Bowl."""

SMALLEST, LARGEST = 16, 1024
UNITS: Final = 128.0
QUANTILES: Final = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
FLUORESCENCE_SHARES: Final = (0.012, 0.015, 0.019, 0.032, 0.092, 0.228, 0.29, 0.313, 0.4)
STAINED_SHARES: Final = (0.03, 0.04, 0.068, 0.127, 0.195, 0.274, 0.347, 0.397, 0.5)
FLUORESCENCE_PEAKS: Final = (15.0, 17.0, 20.0, 26.0, 38.0, 55.0, 78.0, 93.0, 124.0)
"""At these quantiles, over the images: the foreground share, as measured on the 2018 Data Science Bowl (stage 1,
training), and the grey level of a typical nucleus; the brightest of an image are several times brighter."""

PALETTES: Final = (  # paper, nucleus and stroma, each red, green and blue
    ((178, 158, 208), (88, 34, 184), (152, 124, 192)),
    ((207, 209, 208), (106, 34, 128), (182, 178, 168)),
    ((232, 196, 222), (84, 36, 128), (216, 118, 172)),
)
PALETTE_SHARES: Final = (0.55, 0.30, 0.15)


def synthetic_nuclei(
    n: int = 200, *, seed: int = 0, image_size: int | tuple[int, ...] = 128, channels: int = 3
) -> SegmentationData:
    """n drawn images of cell nuclei, uint8 [n, channels, h, w], and their exact masks, uint8 0 or 1 [n, h, w].

    Three kinds as in the 2018 Data Science Bowl: fluorescence (80 %), stained tissue (16 %) and bright-field smears
    (4 %); each name begins with its kind. Nuclei touch, differ in size, brightness and texture and are cut by the border;
    light is uneven, and there are debris, folds and bodies out of focus, so that no threshold separates the nuclei.
    Image i depends on seed, i, image_size and channels alone: a longer set begins with the shorter one.

    image_size: one side, or (height, width), from 16 to 1024. channels: 3 (red, green, blue) or 1 (luminance).
    Raises: InvalidArgument if n, seed, image_size or channels is outside its domain.

    >>> data = synthetic_nuclei(8, seed=0, image_size=(32, 48))
    >>> data
    SegmentationData(8 images of 32x48, 3 channels, from synthetic nuclei, seed 0)
    >>> data.images.shape, data.masks.shape
    ((8, 3, 32, 48), (8, 32, 48))
    >>> sorted({name.rsplit("-", 2)[0] for name in data.names})
    ['bright-field', 'fluorescence', 'stained']
    """
    sides = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    _check_arguments(n, seed, sides, channels)
    height, width = sides
    images = np.empty((n, channels, height, width), np.uint8)
    masks = np.empty((n, height, width), np.uint8)
    names = []
    for i, kind in enumerate(kind_of_each(n, seed)):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, i)))
        colours, masks[i] = DRAW[kind](Scene(rng, height, width))
        rgb = np.clip(np.rint(colours), 0, 255)
        images[i] = rgb if channels == 3 else np.rint(luminance(rgb))
        names.append(f"{kind}-{seed}-{i:05d}")
    return SegmentationData(images, masks, tuple(names), f"synthetic nuclei, seed {seed}")


def _check_arguments(n: int, seed: int, sides: tuple[int, ...], channels: int) -> None:
    if n < 1:
        raise InvalidArgument(f"n must be at least 1 image, got {n}")
    if seed < 0:
        raise InvalidArgument(f"seed must be >= 0, got {seed}")
    if len(sides) != 2 or not all(isinstance(side, Integral) and SMALLEST <= side <= LARGEST for side in sides):
        raise InvalidArgument(
            f"image_size must be 2 integers from {SMALLEST} to {LARGEST}, height and width, got {sides}"
        )
    if channels not in (1, 3):
        raise InvalidArgument(f"channels must be 1 (luminance) or 3 (red, green, blue), got {channels}")


def kind_of_each(n: int, seed: int) -> list[str]:
    """The kind of the first n images: an opening block with some of each, then blocks at the shares of the real set.

    >>> [kind_of_each(8, seed=0).count(kind) for kind in KINDS]
    [4, 2, 2]
    """
    kinds: list[str] = []
    while len(kinds) < n:
        counts = BLOCK_COUNTS if kinds else OPENING_COUNTS
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, len(kinds))))
        kinds.extend(KINDS[k] for k in rng.permutation(np.repeat(np.arange(3), counts)))
    return kinds[:n]


def luminance(rgb: Array) -> Array:
    """[3, h, w] to [1, h, w]."""
    red, green, blue = (weight * channel for weight, channel in zip(GREY_WEIGHTS, rgb, strict=True))
    return np.asarray(red + green + blue)[None]


# ---- the parts of a scene: noise, contours, and contours placed over the image


@dataclass(frozen=True)
class Outline:
    """A closed contour in units: an ellipse whose radius is disturbed by the 2nd to 5th Fourier wave around it."""

    y: float
    x: float
    long: float
    short: float
    angle: float
    waves: NDArray[np.complex128]


@dataclass(frozen=True)
class Layout:
    """How nuclei are placed: sizes in units, `share` and `touching` between 0 and 1, `spacing` in radii of both."""

    share: float
    radius: float
    variation: float
    elongation: float
    irregularity: float
    touching: float
    spacing: float
    density: Array  # a coarse map: nuclei start where it is positive and lie along its level lines


class Scene:
    """Draws the parts of one image from one random generator. All lengths are in units."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.shape = (height, width)
        self.scale = math.sqrt(height * width) / UNITS  # pixels a unit
        self.extent = np.round(np.array(self.shape) / self.scale, 9)

    def coarse(self) -> Scene:
        """The same scene at about half a pixel a unit: a map drawn on it does not depend on the resolution."""
        height, width = np.maximum(np.rint(self.extent / 2), 3).astype(int)
        return Scene(self.rng, int(height), int(width))

    def noise(self, cell: float) -> Array:
        """A random field [h, w], of mean 0 and deviation near 1, that varies over `cell` units: a B-spline of noise."""
        field = self.rng.standard_normal([math.ceil(length / cell) + 4 for length in self.extent])
        for axis, pixels in enumerate(self.shape):
            place = (np.arange(pixels) + 0.5) / (self.scale * cell)
            first, t = np.floor(place).astype(int), place % 1
            weights = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3
            column = (-1, 1) if axis == 0 else (1, -1)
            field = sum(w.reshape(column) * np.take(field, first + k, axis) for k, w in enumerate(weights)) / 6
        return np.asarray(2.0 * field)

    def fibres(self, wavelength: float) -> Array:
        """Wavy strands [h, w] between -1 and 1, about `wavelength` units apart."""
        y, x = ((np.arange(pixels) + 0.5) / self.scale for pixels in self.shape)
        angle = self.rng.uniform(0, math.pi)
        across = (y[:, None] * math.sin(angle) + x[None] * math.cos(angle)) / wavelength
        return np.asarray(np.sin(2 * math.pi * across + 3.5 * self.noise(28) + self.noise(9)))

    def outline(
        self, centre: Array, radius: float, *, elongation: float, irregularity: float, angle: float | None = None
    ) -> Outline:
        """A random contour around (y, x), turned near the angle if there is one."""
        stretch = math.sqrt(self.rng.uniform(1, elongation))
        size = irregularity / np.sqrt(np.arange(1, 5)) * self.rng.uniform(0.3, 1, 4)
        waves = size * np.exp(2j * math.pi * self.rng.random(4))
        turn = self.rng.uniform(0, math.pi) if angle is None else angle + self.rng.normal(0, 0.3)
        return Outline(float(centre[0]), float(centre[1]), radius * stretch, radius / stretch, turn, waves)

    def strays(self, mean: float, radii: tuple[float, float], **form: float) -> list[Outline]:
        """A Poisson number of contours anywhere, of the form `outline` takes: what is drawn but is not a nucleus."""
        number = self.rng.poisson(mean)
        return [self.outline(self.rng.random(2) * self.extent, self.rng.uniform(*radii), **form) for _ in range(number)]

    def place_outlines(self, layout: Layout) -> list[Outline]:
        """Contours over the layout's share of the image, at least 3 if there is room, the first well inside it."""
        rng, whole = self.rng, float(np.prod(self.extent))
        tries = int(30 + 6 * layout.share * whole / (math.pi * layout.radius**2))
        radii = layout.radius * np.exp(layout.variation * rng.standard_normal(tries))
        places = rng.uniform(-0.02, 1.02, (tries, 2)) * self.extent
        places[0] = rng.uniform(0.1, 0.9, 2) * self.extent
        joins, partners, turns = rng.random(tries) < layout.touching, rng.random(tries), 2 * math.pi * rng.random(tries)
        outlines: list[Outline] = []
        taken = np.empty((tries, 3))  # y, x and radius of each outline
        area = 0.0
        for place, radius, join, partner, turn in zip(places, radii, joins, partners, turns, strict=True):
            earlier = taken[: len(outlines)]
            if area >= layout.share * whole and len(outlines) >= 3:
                break
            if join and outlines:
                *beside, near = earlier[int(partner * len(outlines))]
                place[:] = beside + 0.95 * (near + radius) * np.array([math.sin(turn), math.cos(turn)])
            open_here, angle = _ground(layout.density, place / self.extent)
            if outlines and not open_here:
                continue
            gaps = np.hypot(earlier[:, 0] - place[0], earlier[:, 1] - place[1])
            if (gaps < layout.spacing * (earlier[:, 2] + radius)).any():
                continue
            taken[len(outlines)] = *place, radius
            form = {"elongation": layout.elongation, "irregularity": layout.irregularity, "angle": angle}
            outlines.append(self.outline(place, radius, **form))
            area += math.pi * radius**2 * bool(np.all((place > 0) & (place < self.extent)))
        return outlines

    def around(self, shape: Outline, edge: float = 0.0) -> tuple[tuple[slice, slice], Array]:
        """The window around a contour and, in it, the distance from the centre: 0 in the middle, 1 on the contour."""
        reach = (shape.long * (1 + np.abs(shape.waves).sum()) + edge) * self.scale + 1
        centre = shape.y * self.scale - 0.5, shape.x * self.scale - 0.5
        rows, columns = (
            slice(max(0, math.floor(c - reach)), max(0, min(pixels, math.ceil(c + reach) + 1)))
            for c, pixels in zip(centre, self.shape, strict=True)
        )
        dy = (np.arange(rows.start, rows.stop) - centre[0])[:, None] / self.scale
        dx = (np.arange(columns.start, columns.stop) - centre[1])[None] / self.scale
        cos, sin = math.cos(shape.angle), math.sin(shape.angle)
        z = (dx * cos + dy * sin) / shape.long + 1j * (dy * cos - dx * sin) / shape.short
        distance = np.abs(z)
        turn = z / np.maximum(distance, 1e-9)
        second, third, fourth, fifth = shape.waves
        disturbance = turn * turn * (second + turn * (third + turn * (fourth + turn * fifth)))
        return (rows, columns), distance / (1 + disturbance.real)

    def body(self, shape: Outline, edge: float) -> tuple[tuple[slice, slice], Array, Array]:
        """As `around`, and how much of each pixel is covered (0 to 1) if the contour is blurred over `edge` units."""
        window, distance = self.around(shape, edge)
        t = np.clip(0.5 + (1 - distance) * math.sqrt(shape.long * shape.short) / max(edge, 1 / self.scale), 0, 1)
        return window, distance, t * t * (3 - 2 * t)

    def mask(self, shapes: Sequence[Outline]) -> Mask:
        """The contours, filled, [h, w]; however few the pixels, the one amid the first contour is always in it."""
        mask = np.zeros(self.shape, np.bool_)
        for shape in shapes:
            window, distance = self.around(shape)
            mask[window] |= distance <= 1
        mask[int(shapes[0].y * self.scale), int(shapes[0].x * self.scale)] = True
        return mask


def _ground(density: Array, place: Array) -> tuple[bool, float]:
    """Whether a nucleus may start at a place (as shares of the sides), and the direction of the level line there."""
    row, column = (min(max(int(p * size), 1), size - 2) for p, size in zip(place, density.shape, strict=True))
    down = density[row + 1, column] - density[row - 1, column]
    right = density[row, column + 1] - density[row, column - 1]
    return bool(density[row, column] > 0), math.atan2(-right, down)


# ---- the three kinds: a scene -> grey levels of red, green and blue [3, h, w], and the mask [h, w]


def fluorescence(scene: Scene) -> tuple[Array, Mask]:
    """Bright nuclei on a dark field, a few far brighter than the rest, with haze, debris and camera noise."""
    rng = scene.rng
    share, peak = (float(np.interp(rng.random(), QUANTILES, q)) for q in (FLUORESCENCE_SHARES, FLUORESCENCE_PEAKS))
    radius = min(2.3 * 3.7 ** (rng.random() ** 1.5), 0.34 * UNITS * math.sqrt(share))
    density = scene.coarse().noise(24) + rng.uniform(0.2, 2.5)
    elongation, touching = rng.uniform(1.3, 2.4), rng.uniform(0, 0.5)
    nuclei = scene.place_outlines(Layout(share, radius, 0.2, elongation, 0.05, touching, 0.85, density))

    from scipy import ndimage

    spread, focus = rng.uniform(0.15, 0.85), rng.uniform(1.0, 2.8)
    flaring = rng.uniform(0.05, 0.25) if rng.random() < 0.45 else 0.0
    texture = 1 + rng.uniform(0.04, 0.25) * scene.noise(0.4 * radius)
    glow = np.zeros(scene.shape)
    for nucleus in nuclei:
        flare = rng.uniform(2.5, 5) if rng.random() < flaring else 1.0
        level = flare * math.exp(spread * min(rng.standard_normal(), 1.8))
        window, distance, cover = scene.body(nucleus, focus * rng.uniform(0.8, 1.6))
        dome = level * cover * (1.1 - 0.3 * np.minimum(distance, 1) ** 2)
        glow[window] = np.maximum(glow[window], dome * texture[window])
    haze = rng.uniform(0.1, 0.6) * ndimage.gaussian_filter(glow, rng.uniform(4, 10) * scene.scale, truncate=2.5)
    dark = rng.uniform(0.02, 0.25) * np.exp(0.6 * scene.noise(45))
    light = peak * np.exp(rng.uniform(0.05, 0.45) * scene.noise(90))
    grey = rng.uniform(0, 10) + light * (np.maximum(glow, unfocused(scene, radius)) + debris(scene) + haze + dark)
    camera, shot = rng.uniform(0.3, 1.5), rng.uniform(0.02, 0.25)
    grey += np.sqrt(camera**2 + shot * grey) * rng.standard_normal(scene.shape)
    return np.repeat(grey[None], 3, axis=0), scene.mask(nuclei)


def unfocused(scene: Scene, radius: float) -> Array:
    """The light [h, w] of bodies far above or below the plane: wide, without an edge, and not nuclei of this image."""
    field = np.zeros(scene.shape)
    size = max(3.5, radius)
    for blob in scene.strays(2.5, (0.8 * size, 1.8 * size), elongation=2, irregularity=0.1):
        window, _, cover = scene.body(blob, 2.2 * blob.long)
        field[window] = np.maximum(field[window], scene.rng.uniform(0.2, 0.9) * cover)
    return field


def debris(scene: Scene) -> Array:
    """Glowing specks and, in some images, threads, all much thinner than a nucleus, [h, w]."""
    field = np.zeros(scene.shape)
    for speck in scene.strays(3, (0.5, 1.1), elongation=2, irregularity=0.2):
        window, _, cover = scene.body(speck, 1.5)
        field[window] += scene.rng.uniform(0.5, 3) * cover
    if scene.rng.random() < 0.15:
        threads = np.maximum(scene.fibres(scene.rng.uniform(14, 30)) - 0.85, 0) / 0.15
        field += scene.rng.uniform(0.05, 0.3) * threads * np.clip(scene.noise(30), 0, 1)
    return field


def stained(scene: Scene) -> tuple[Array, Mask]:
    """Violet nuclei in stained tissue: crowded bands around empty lumens, with stroma and blurred bodies besides."""
    rng = scene.rng
    share = float(np.interp(rng.random(), QUANTILES, STAINED_SHARES))
    radius = min(3.2 * 3.1 ** rng.random(), 0.34 * UNITS * math.sqrt(share))
    density = scene.coarse().noise(rng.uniform(25, 50)) + rng.uniform(0.1, 0.6) + 2 * (share - 0.15)
    elongation, touching, spacing = rng.uniform(1.6, 3.2), rng.uniform(0.2, 0.7), rng.uniform(0.55, 0.85)
    nuclei = scene.place_outlines(Layout(1.12 * share, radius, 0.25, elongation, 0.06, touching, spacing, density))

    chromatin = np.maximum(1 + rng.uniform(0.1, 0.3) * scene.noise(max(1.0, 0.22 * radius)), 0.2)
    violet = np.zeros(scene.shape)
    from scipy import ndimage

    paleness, focus = rng.uniform(0, 0.6), rng.uniform(1.2, 2.4)
    for nucleus in nuclei:
        pale = rng.random() < paleness
        depth = rng.uniform(0.25, 0.6) if pale else rng.uniform(0.55, 1.15)
        edge = focus * rng.uniform(0.8, 1.5)
        absorb(scene, violet, nucleus, edge=edge, depth=depth, rim=0.35 if pale else 0.05, grain=chromatin)
    for blob in scene.strays(5, (0.7 * radius, 1.4 * radius), elongation=2.5, irregularity=0.08):
        depth = rng.uniform(0.15, 0.6)
        absorb(scene, violet, blob, edge=1.3 * blob.long, depth=depth, rim=0.0, grain=np.ones(scene.shape))

    violet = ndimage.gaussian_filter(violet, rng.uniform(0.4, 0.9) * scene.scale)
    zoom = np.divide(scene.shape, density.shape)
    tissue = np.clip(0.5 + ndimage.zoom(density, zoom, order=1, grid_mode=True, mode="nearest"), 0, 1)
    strands = 0.5 * scene.fibres(rng.uniform(5, 14)) + scene.noise(12) + 0.8 * scene.noise(3)
    pink = 0.6 * tissue * np.clip(0.3 + rng.uniform(0.1, 0.45) * strands, 0, 2)
    if rng.random() < 0.3:  # a dense patch of fibres
        pink += np.clip(4 * scene.noise(rng.uniform(20, 45)) - 4.4, 0, 1) * (1 + 0.2 * scene.noise(5))
    colours = develop(rng, violet, pink) * np.exp(0.05 * scene.noise(90))
    return colours + rng.normal(0, 1.5, colours.shape), scene.mask(nuclei)


def absorb(
    scene: Scene, density: Array, shape: Outline, *, edge: float, depth: float, rim: float, grain: Array
) -> None:
    """Add a body to an optical density [h, w]; `rim` is the part of it in the shell. Where two overlap it is denser."""
    window, distance, cover = scene.body(shape, edge)
    profile = depth * (1 - rim + 1.6 * rim * np.minimum(distance, 1) ** 3)
    body, background = cover * profile * grain[window], density[window]
    density[window] = np.maximum(background, body) + 0.25 * np.minimum(background, body)


def develop(rng: np.random.Generator, violet: Array, pink: Array) -> Array:
    """Optical densities [h, w] to colours [3, h, w]: each dye takes its part of red, green and blue (Beer, Lambert)."""
    palette = PALETTES[rng.choice(len(PALETTES), p=PALETTE_SHARES)]
    paper, nucleus, stroma = np.array(palette) * np.exp(rng.normal(0, 0.03, (3, 1)) + rng.normal(0, 0.015, (3, 3)))
    density = np.multiply.outer(np.log(paper / nucleus), violet) + np.multiply.outer(np.log(paper / stroma), pink)
    return np.asarray(np.minimum(paper, 250)[:, None, None] * np.exp(-density))


def bright_field(scene: Scene) -> tuple[Array, Mask]:
    """Grey smears: angular cells that overlap, each with a small dark nucleus; specks, folds and rings besides."""
    rng = scene.rng
    zoom = rng.uniform(1, 1.9)
    crowding = scene.coarse().noise(35) + rng.uniform(0, 1)
    cells = scene.place_outlines(Layout(rng.uniform(0.2, 0.5), 5.2 * zoom, 0.25, 2.2, 0.24, 0.55, 0.36, crowding))
    grain = 1 + 0.12 * scene.noise(1.2 * zoom)
    cytoplasm, dense = np.zeros(scene.shape), np.zeros(scene.shape)
    nuclei: list[Outline] = []
    for cell in cells:
        absorb(scene, cytoplasm, cell, edge=0.9 * zoom, depth=rng.uniform(0.1, 0.5), rim=0.06, grain=grain)
        centre = np.array([cell.y, cell.x]) + (rng.normal(0, 0.12 * cell.short, 2) if nuclei else 0)
        size = 1.35 * zoom * math.exp(rng.normal(0, 0.15))
        nuclei.append(scene.outline(centre, size, elongation=1.6, irregularity=0.08))
        absorb(scene, dense, nuclei[-1], edge=0.9 * zoom, depth=rng.uniform(0.4, 0.85), rim=0.15, grain=grain)
    for speck in scene.strays(9, (0.5 * zoom, zoom), elongation=2, irregularity=0.2):
        absorb(scene, dense, speck, edge=0.7, depth=rng.uniform(0.3, 0.9), rim=0.0, grain=grain)
    for ring in scene.strays(0.7, (2 * zoom, 5 * zoom), elongation=1.2, irregularity=0.05):
        window, distance = scene.around(ring, ring.long)
        dense[window] += 0.08 * np.exp(-50 * (distance - 1) ** 2) - 0.04 * np.exp(-50 * (distance - 0.7) ** 2)
    folds = 8 * np.maximum(scene.fibres(16 * zoom) - 0.92, 0) * np.clip(cytoplasm - 0.3, 0, 1)
    light = rng.uniform(215, 238) * np.exp(0.04 * scene.noise(90))
    grey = light * np.exp(-cytoplasm - dense - folds) + rng.normal(0, 1.2, scene.shape)
    return np.repeat(grey[None], 3, axis=0), scene.mask(nuclei)


DRAW: Final[dict[str, Callable[[Scene], tuple[Array, Mask]]]] = dict(
    zip(KINDS, (fluorescence, stained, bright_field), strict=True)
)
