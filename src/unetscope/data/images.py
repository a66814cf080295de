"""Decode the bytes of one PNG, TIFF or JPEG, within bounds.

One rule holds in every format and at every depth. Orientation: pixels are turned as the file notes (EXIF, TIFF tag 274), and
`Pixels.orientation` keeps the note, so that an image and its mask can be compared. Polarity: in an image a larger number is
brighter, so a TIFF whose zero is white is inverted; in a mask the stored numbers count, whatever they look like. Numbers
have the sign that a TIFF declares. Transparency is dropped, unless a mask may be drawn in it; other channels are not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from unetscope.data.decoding import decoders_errors, refuse_too_large, turn_for
from unetscope.data.jpeg_segments import refuse_long_exif, refuse_many_scans, refuse_many_segments
from unetscope.data.png_chunks import refuse_damaged_png
from unetscope.data.problems import Problem, Unusable, problem
from unetscope.data.tiff_damage import COMPRESSION, errors_of_libtiff, refuse_damaged_strips
from unetscope.data.tiff_directories import MAX_PAGES, count_pages, refuse_many_values

MAX_PIXELS = 64 * 10**6
BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "LA": 2}  # by mode of Pillow; others have four
ImageSize = tuple[int, ...]
"""Height and width; of a volume depth, height and width."""

# Any: to mypy their common base is abstract and cannot be called.
_MAGIC: dict[bytes, Any] = {
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"II+\0": TiffImagePlugin.TiffImageFile,
    b"MM\0+": TiffImagePlugin.TiffImageFile,
}
ORIENTATION, PHOTOMETRIC, WHITE_IS_ZERO = 274, 262, 0  # tags of TIFF and EXIF, and a value of the second
BITS, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 338, 339  # tags of TIFF
JPEGS = (6, 7, 34892)  # values of COMPRESSION
IS_ALPHA = (1, 2)  # values of EXTRA_SAMPLES
UNSIGNED, SIGNED = 1, 2  # values of SAMPLE_FORMAT


@dataclass(frozen=True)
class Pixels:
    """A decoded file. values: [*sides] or [*sides, 3], of any number type; alpha is dropped.

    sides: how many: 2, or 3 for a volume, its depth first. lossy: a JPEG. orientation: how the file says that it is to be
    turned, 1 to 8 as in EXIF; `values` are turned already. problems: what was met on the way and did not prevent reading.
    """

    values: NDArray[Any]
    lossy: bool = False
    orientation: int = 1
    problems: tuple[Problem, ...] = ()
    sides: int = 2

    @property
    def is_colour(self) -> bool:
        """Whether there are three channels."""
        return self.values.ndim > self.sides


def decode(data: bytes, file: str, *, indexed: bool | Literal["exactly"] = False, are_slices: bool = False) -> Pixels:
    """The pixels in the bytes of a PNG, TIFF or JPEG; `file` is its name for messages.

    are_slices: whether the pages of a TIFF are the slices of a volume; if not, the first is read.

    A palette is applied, unless `indexed` (for masks) and its colours are not greys: then the indices are the values. For
    masks the polarity of a TIFF is not applied either. `"exactly"` (for class maps): numbers are as stored, whatever the
    palette and the bits a pixel.
    The header's width and height are checked before memory is taken for them.
    Raises: Unusable (not-an-image, unreadable, too-large, pixel-type).

    >>> stream = io.BytesIO()
    >>> Image.new("RGBA", (4, 2)).save(stream, "PNG")
    >>> decode(stream.getvalue(), "a.png").values.shape
    (2, 4, 3)
    """
    plugin = next((plugin for magic, plugin in _MAGIC.items() if data.startswith(magic)), None)
    if plugin is None:
        raise Unusable("not-an-image", file, "its content is not PNG, TIFF or JPEG" if data else "it is empty")
    with decoders_errors(file):
        # Plugins are called directly, because `Image.open` tries every decoder, and warns of large images by itself.
        if plugin is TiffImagePlugin.TiffImageFile:
            pages = count_pages(data)
            read = pages if are_slices else 1
            refuse_many_values(data, file, read)
            pixels = _decode_tiff(data, file, indexed, read)
        else:
            if plugin is JpegImagePlugin.JpegImageFile:
                refuse_many_segments(data, file)
            with plugin(io.BytesIO(data)) as image:
                pages = getattr(image, "n_frames", 1)
                pixels = _load(image, data, file, indexed)
        if pages > 1 and pixels.sides == 2:
            pixels = replace(pixels, problems=(*_pages_problems(pages, file), *pixels.problems))
    if pixels.values.size == 0 or pixels.values.ndim not in (pixels.sides, pixels.sides + 1):
        raise Unusable("unreadable", file, f"it decodes to {list(pixels.values.shape)} pixels")
    if np.issubdtype(pixels.values.dtype, np.complexfloating):
        raise Unusable("pixel-type", file, "its pixels are complex numbers")
    return pixels


def _load(image: Image.Image, data: bytes, file: str, indexed: bool | Literal["exactly"]) -> Pixels:
    _check_pixel_count(image.width, image.height, file)
    n_bytes = image.width * image.height * BYTES_A_PIXEL.get(image.mode, 4)
    refuse_too_large(file, n_bytes)
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        refuse_many_scans(data, n_bytes, file)
    problems: list[Problem] = []
    is_png = isinstance(image, PngImagePlugin.PngImageFile)
    if is_png:
        refuse_damaged_png(data, file)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        refuse_damaged_strips(data, image.tag_v2, file)
    orientation = _noted_orientation(image, file)
    with turn_for(n_bytes), errors_of_libtiff(file):
        image.load()
    # Pillow turns a TIFF while it loads it and removes the note; what is still noted has to be done here.
    turns = _noted_orientation(image, file)
    # IHDR: bit depth at byte 24, colour type at 25. Pillow keeps 16 bits only for grey.
    if is_png and data[24] == 16 and data[25] != 0:
        problems.append(problem("16-bit-colour-png", file, "of its 16 bits a colour only the upper 8 are read"))
    values = _values(image, indexed)
    lossy = isinstance(image, JpegImagePlugin.JpegImageFile)
    bits = data[24] if is_png else 8
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        values = _with_declared_sign(values, tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0])
        lossy, bits = tags.get(COMPRESSION) in JPEGS, tags.get(BITS, (1,))[0]
        problems += _undeclared_problems(tags.get(EXTRA_SAMPLES, ()), file)
    if indexed is True:
        problems += _transparency_problems(values, _alpha(image), file)
    values = _turned(values, turns)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        values = _with_polarity(values, is_inverted=image.mode in ("1", "L"), wanted=indexed is False)
    if indexed and image.mode in ("1", "L"):
        values = _as_stored(values, bits, is_white_kept=indexed is True)
    return Pixels(values, lossy, orientation, tuple(problems))


def _noted_orientation(image: Image.Image, file: str) -> int:
    """How an image says that it is to be turned, 1 to 8; 1, as it is, where it says nothing that can be read."""
    # Pillow keeps EXIF under the first of these names, or as hexadecimal text under the second.
    refuse_long_exif(len(image.info.get("exif", b"")) or len(image.info.get("Raw profile type exif", "")) // 2, file)
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged note beside pixels that may be whole
        return 1
    return orientation if orientation in range(1, 9) else 1


def _turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels as they are to be shown. Source: EXIF 2.3, tag 274.

    >>> _turned(np.array([[1, 2, 3]]), 6).tolist()      # the first row is the right-hand column
    [[1], [2], [3]]
    """
    if orientation >= 5:  # 5 to 8: rows and columns change places first
        values = np.swapaxes(values, 0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _with_polarity(values: NDArray[Any], *, is_inverted: bool, wanted: bool) -> NDArray[Any]:
    """Numbers of a TIFF whose zero is white, inverted if that is wanted and not undone if it is not.

    is_inverted: whether the decoder did it, as Pillow does up to 8 bits and not above.
    """
    if is_inverted == wanted or not np.issubdtype(values.dtype, np.unsignedinteger):
        return values
    return np.asarray(np.iinfo(values.dtype).max - values)


def _with_declared_sign(values: NDArray[Any], sample_format: int) -> NDArray[Any]:
    """Numbers of a TIFF of the sign that it declares, which Pillow does not look at where they have 8 or 32 bits."""
    if sample_format == SIGNED and values.dtype == np.uint8:
        return values.view(np.int8)
    return values.view(np.uint32) if sample_format == UNSIGNED and values.dtype == np.int32 else values


def _as_stored(values: NDArray[np.uint8], bits: int, *, is_white_kept: bool) -> NDArray[np.uint8]:
    """Greys of fewer than 8 bits, which Pillow spreads over a byte, as the numbers that are stored.

    is_white_kept: whether numbers of nothing but black and white stay 0 and 255.

    >>> _as_stored(np.array([0, 17, 34], np.uint8), 4, is_white_kept=True).tolist()
    [0, 1, 2]
    """
    if is_white_kept and bool(((values == 0) | (values == 255)).all()):
        return values
    return np.asarray(values // np.uint8(255 // (2 ** min(bits, 8) - 1)))


def _alpha(image: Image.Image) -> NDArray[np.uint8] | None:
    """The opacity of every pixel; None for a file without any."""
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("RGBA")
    return np.asarray(image.getchannel("A")) if image.mode in ("LA", "PA", "RGBA") else None


def _transparency_problems(values: NDArray[Any], alpha: NDArray[Any] | None, file: str) -> list[Problem]:
    """What is wrong with a mask whose transparency says something else than its numbers; nothing if it says the same."""
    if alpha is None or alpha.min() == alpha.max():
        return []
    if (values == values.reshape(-1, *values.shape[alpha.ndim :])[0]).all():
        what = "its transparency varies and its numbers do not: the mask seems to be drawn in it, and it is not read"
        return [problem("mask-transparency", file, what)]
    hidden = (values.reshape(*alpha.shape, -1) != 0).any(axis=-1) & (alpha == 0)
    what = f"{np.count_nonzero(hidden)} pixels that are not 0 are transparent, and transparency is not read"
    return [problem("mask-transparency", file, what)] if hidden.any() else []


def _undeclared_problems(extra: Sequence[int], file: str) -> list[Problem]:
    """What is wrong with channels of a TIFF beyond grey or colours that it does not declare as transparency."""
    undeclared = sum(kind not in IS_ALPHA for kind in extra)
    channels = (
        f"{undeclared} of its channels {'is' if undeclared == 1 else 'are'} neither grey, colour nor transparency"
    )
    return [problem("extra-channels", file, f"{channels}, and not read")] if undeclared else []


def _values(image: Image.Image, indexed: bool | Literal["exactly"]) -> NDArray[Any]:
    """The array behind a Pillow image of any mode: [height, width] or [height, width, 3]."""
    mode = image.mode
    if mode == "1":
        return np.asarray(image).astype(np.uint8) * np.uint8(255)
    if mode in ("P", "PA") and indexed == "exactly":
        return np.asarray(image.getchannel(0) if mode == "PA" else image)
    if mode in ("P", "PA") and indexed:
        return _palette_values(image)
    if mode in ("LA", "La"):
        return np.asarray(image.getchannel(0))
    if mode in ("L", "RGB") or mode[0] in "IF":
        values = np.asarray(image)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    return np.asarray(image.convert("RGB"))


def _palette_values(image: Image.Image) -> NDArray[Any]:
    """The greys of a grey palette, else the indices themselves: numbers of objects, whose colours are for the eye.

    Where black is used and is not number 0, black and not 0 is the background: the numbers are shifted so that it is.
    """
    indices = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
    colours = np.zeros((256, 3), np.uint8)
    stored = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[: len(stored)] = stored
    numbers = np.unique(indices)
    used = colours[numbers]
    if (used == used[:, :1]).all():
        return colours[indices, 0]
    black = numbers[~used.any(axis=1)]
    if len(black) and black[0] != 0:
        return np.where(indices == black[0], 0, indices.astype(np.int32) + 1)
    return indices


def _decode_tiff(data: bytes, file: str, indexed: bool | Literal["exactly"], pages: int) -> Pixels:
    """The first page as an image, or several pages as the slices of a volume, which have to be alike."""
    read = _pages_of_tiff(data, file, indexed, pages)
    first = next(read)
    if pages == 1:
        return first
    if pages == MAX_PAGES:
        raise Unusable("too-large", file, f"it has {MAX_PAGES} pages or more")
    refuse_too_large(file, first.values.nbytes * pages)
    values = np.empty((pages, *first.values.shape), first.values.dtype)
    with turn_for(values.nbytes):
        values[0] = first.values
        for number, page in enumerate(read, 1):
            if (page.values.shape, page.values.dtype) != (first.values.shape, first.values.dtype):
                what = f"its first page is {_described(first.values)}, page {number + 1} {_described(page.values)}"
                raise Unusable("unlike-pages", file, what)
            values[number] = page.values
    return replace(first, values=values, sides=3)


def _described(values: NDArray[Any]) -> str:
    return f"{'x'.join(map(str, values.shape))} {values.dtype}"


def _pages_of_tiff(data: bytes, file: str, indexed: bool | Literal["exactly"], pages: int) -> Iterator[Pixels]:
    """With Pillow, which supports more compressions, or with tifffile if Pillow refuses it or would cut it to 8 bits."""
    done = 0
    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(data)) as image:
            while done < pages:
                image.seek(done)
                bits = image.tag_v2.get(BITS, (1,))
                if len(bits) > 1 and max(bits) > 8:
                    break
                page = _load(image, data, file, indexed)
                done += 1
                yield page
    except SyntaxError:  # Pillow does not support this kind of TIFF
        pass
    if done < pages:
        import tifffile

        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            for number in range(done, pages):
                yield _page_by_tifffile(tiff.pages[number], file, indexed)


def _page_by_tifffile(page: Any, file: str, indexed: bool | Literal["exactly"]) -> Pixels:
    _check_pixel_count(page.imagewidth, page.imagelength * page.imagedepth, file)
    if page.samplesperpixel > 4:
        raise Unusable("pixel-type", file, f"it has {page.samplesperpixel} channels")
    if np.issubdtype(page.dtype, np.complexfloating):
        raise Unusable("pixel-type", file, "its pixels are complex numbers")
    refuse_too_large(file, page.nbytes)
    with turn_for(page.nbytes):
        values = page.asarray()
    orientation = int(page.tags.valueof(ORIENTATION, default=1))
    if page.axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    elif page.axes not in ("YX", "YXS"):
        raise Unusable("pixel-type", file, f"its axes are {page.axes}, not height and width with 1, 3 or 4 channels")
    extra, alpha = tuple(map(int, page.extrasamples)), None
    if values.ndim == 3:
        kept = min(3, values.shape[-1]) if values.shape[-1] > 2 else 1
        extra = extra[-(values.shape[-1] - kept) :] if values.shape[-1] > kept else ()
        alpha = values[..., -1] if extra and extra[-1] in IS_ALPHA else None
        values = values[..., :3] if kept == 3 else values[..., 0]
    problems = _undeclared_problems(extra, file)
    if indexed is True:
        problems += _transparency_problems(values, alpha, file)
    values = _turned(values.astype(values.dtype.newbyteorder("=")), orientation)
    if page.photometric == WHITE_IS_ZERO:
        values = _with_polarity(values, is_inverted=False, wanted=indexed is False)
    return Pixels(values, int(page.compression) in JPEGS, orientation, tuple(problems))


def _pages_problems(pages: int, file: str) -> list[Problem]:
    counted = f"{MAX_PAGES} pages or more" if pages == MAX_PAGES else f"{pages} pages"
    return [problem("several-pages", file, f"it has {counted}, of which the first is read")]


def _check_pixel_count(width: int, height: int, file: str) -> None:
    if width < 1 or height < 1:
        raise Unusable("unreadable", file, f"its header claims {width}x{height} pixels")
    if width * height > MAX_PIXELS:
        what = f"its header claims {width}x{height} pixels, more than the {MAX_PIXELS // 10**6} million that are read"
        raise Unusable("too-large", file, what)


def to_image(pixels: Pixels, file: str) -> tuple[NDArray[np.unsignedinteger], tuple[Problem, ...]]:
    """The pixels as uint8 or uint16, and their problems.

    Raises: Unusable (pixel-type) for fractions, negative numbers and numbers over 65535.

    >>> to_image(Pixels(np.array([[0, 70000]])), "a.tif")
    Traceback (most recent call last):
    unetscope.data.problems.Unusable: a.tif: its pixels are int64 between 0 and 70000: save the image with 8 or 16 \
bit whole numbers, or --accept pixel-type
    """
    values = pixels.values
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.int8 and values.min() >= 0:
        values = values.view(np.uint8)
    if values.dtype == np.uint8:
        return values, pixels.problems
    low, high = values.min(), values.max()
    if not np.issubdtype(values.dtype, np.integer) or low < 0 or high > 65535:
        raise Unusable("pixel-type", file, f"its pixels are {values.dtype} between {low} and {high}")
    if high < 65536 // 16:
        dark = problem("dark-16-bit", file, f"its largest value is {high} of 65535")
        return values.astype(np.uint16), (*pixels.problems, dark)
    return values.astype(np.uint16), pixels.problems
