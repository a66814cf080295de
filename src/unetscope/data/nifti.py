"""One NIfTI file as an array with its place in the world, bounded before it is decoded.

NIfTI needs nibabel, an extra. The header is read first, so that a volume that claims too many voxels is refused unread.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetscope.base import DataError, MissingDependency, first_line, printable
from unetscope.data.decoding import decoders_notes

ENDINGS = (".nii.gz", ".nii")
MAX_VOXELS = 512**3
MAX_VOLUME_BYTES = 640 * 2**20  # of the values, scaled as the header says
MAX_HEADER_BYTES = 4 * 2**20  # with its extensions, before the values
MAX_UNPACKED_BYTES = MAX_HEADER_BYTES + MAX_VOLUME_BYTES
GZIP_MAGIC, MOST_MEMBERS = b"\x1f\x8b\x08", 100_000  # of packed files behind each other, as bgzip makes them
FEWEST_AXES = 2
LARGEST_SHIFT = 0.1  # of a voxel, by which two grids may differ: headers are rounded to float32


def is_nifti(path: Path) -> bool:
    """Whether a file is named as NIfTI files are, in upper or lower case."""
    return path.name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class Volume:
    """Values [x, y(, z(, channels))] as stored. affine: from voxels to millimetres, [4, 4]; None if the file does not say.

    qform: the affine by the header's other form, where that places voxels elsewhere. noted_orientation: of a picture, as of
    `Pixels`.
    """

    file: str
    values: NDArray[Any]
    affine: NDArray[np.float64] | None
    qform: NDArray[np.float64] | None = None
    noted_orientation: int = 1

    @property
    def array(self) -> NDArray[Any]:
        """[depth, height, width] or [height, width], channels last: NIfTI stores x first, y second, z third."""
        values = self.values
        return np.squeeze(np.moveaxis(values, (0, 1, 2), (2, 1, 0)) if values.ndim >= 3 else values.T)

    def on_grid_of(self, image: Volume) -> Volume:
        """The same volume with its axes turned as those of an image that it belongs to.

        Axes are flipped and change places as the affines say; nothing is interpolated.
        Raises: DataError if the two then still do not lie in the same place, have different shapes, or note different
        orientations; or if the two forms of a header turn them differently.
        """
        if self.noted_orientation != image.noted_orientation:
            raise DataError(
                f"{self.file} notes orientation {self.noted_orientation}, {image.file} {image.noted_orientation}: which way it "
                "was drawn is not known; save both upright, without the note"
            )
        if self.affine is None or image.affine is None:
            return self
        if min(self.values.ndim, image.values.ndim) < 3:  # of a slice, whose third axis is one voxel
            ours, theirs = (replace(each, values=np.atleast_3d(each.values)) for each in (self, image))
            return ours.on_grid_of(theirs)
        shapes = [volume.values.shape[:3] for volume in (self, image)]
        if self.qform is None and image.qform is None and shapes[0] == shapes[1]:
            shift, voxel = _largest_shift(self.affine, image.affine, shapes[0])
            if shift <= LARGEST_SHIFT * voxel:  # also where axes are as near to one direction as to another
                return self
        turn = _turn(self, self.affine, image, image.affine)
        other_forms = [volume.affine if volume.qform is None else volume.qform for volume in (self, image)]
        if not np.array_equal(turn, _turn(self, other_forms[0], image, other_forms[1])):
            raise DataError(
                f"the sform and the qform of {(self if image.qform is None else image).file} turn {self.file} differently: "
                "which holds is not known; correct the header, or load with check_affines=False"
            )
        return self._turned(turn, image)

    def _turned(self, turn: NDArray[np.float64], image: Volume) -> Volume:
        from nibabel.orientations import apply_orientation, inv_ornt_aff

        assert self.affine is not None and image.affine is not None
        values = apply_orientation(self.values, turn)
        affine = self.affine @ inv_ornt_aff(turn, self.values.shape[:3])
        if values.shape[:3] != image.values.shape[:3]:
            raise DataError(
                f"{self.file} is {list(values.shape[:3])} voxels along the axes of {image.file}, which is "
                f"{list(image.values.shape[:3])}: expected the same"
            )
        shift, voxel = _largest_shift(affine, image.affine, values.shape[:3])
        if not shift <= LARGEST_SHIFT * voxel:
            raise DataError(
                f"{self.file} lies up to {shift:.3g} mm from {image.file} by their affines, whose voxels are {voxel:.3g} mm: "
                "resample one on the grid of the other, or if a header is wrong, load with check_affines=False"
            )
        return Volume(self.file, values, affine)


def _turn(volume: Volume, affine: Any, image: Volume, image_affine: Any) -> NDArray[np.float64]:
    """How axes are flipped and change places from a volume to an image. Raises: DataError for an affine that has no axes."""
    from nibabel.orientations import io_orientation, ornt_transform

    own, of_image = io_orientation(affine), io_orientation(image_affine)
    for each, orientation in ((volume, own), (image, of_image)):
        if np.isnan(orientation).any():
            raise DataError(f"{each.file} has an affine that places no voxel: correct its header")
    return np.asarray(ornt_transform(own, of_image))


def _largest_shift(one: NDArray[np.float64], two: NDArray[np.float64], shape: tuple[int, ...]) -> tuple[float, float]:
    """How far apart two affines put a corner of a grid at most, and the shortest side of a voxel; both in millimetres."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in shape))], float).T
    shift = np.linalg.norm((one @ corners - two @ corners)[:3], axis=0).max()
    return float(shift), float(np.linalg.norm(two[:3, :3], axis=0).min())


def read_nifti(path: Path) -> Volume:
    """The volume of a NIfTI file. Raises: DataError that names the file; MissingDependency without nibabel."""
    file = printable(path.name)
    try:
        import nibabel  # noqa: F401
    except ImportError:
        raise MissingDependency('NIfTI needs nibabel: pip install "unetscope[nifti]"') from None
    try:
        with decoders_notes():  # nibabel, once it is there, prints what it makes of a header
            _refuse_long_gzip(path)
            _refuse_long_header(path)
            image = _opened(path)
            _check_header(
                file, tuple(image.shape), np.dtype(image.get_data_dtype()), is_scaled=_is_scaled(image.dataobj)
            )
            values = np.asanyarray(image.dataobj)
            codes = [int(image.header.get(name, 1)) for name in ("sform_code", "qform_code")]
            affine = np.asarray(image.affine, dtype=np.float64) if any(codes) else None
            qform = _qform_elsewhere(image, affine) if all(codes) else None
            _refuse_damaged_gzip(path)
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{file} cannot be read: there is not enough memory for it") from None
    except Exception as error:  # nibabel lets any exception of its parsers through
        raise DataError(f"{file} cannot be read as NIfTI: {first_line(error)}") from None
    if affine is not None and not (np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 0):
        raise DataError(f"{file} has an affine that places no voxel: correct its header")
    return Volume(file, values, affine, qform)


def _qform_elsewhere(image: Any, affine: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """The affine of the qform of a header, if it places some voxel elsewhere than the sform."""
    qform = image.header.get_qform() if hasattr(image.header, "get_qform") else None
    if affine is None or qform is None or not (np.isfinite(qform).all() and abs(np.linalg.det(qform)) > 0):
        return None
    shift, voxel = _largest_shift(affine, qform, tuple(image.shape[:3]) + (1,) * (3 - len(image.shape)))
    return None if shift <= LARGEST_SHIFT * voxel else np.asarray(qform, dtype=np.float64)


def _opened(path: Path) -> Any:
    """The image of a file, whose values are not read yet; nibabel itself knows its endings in lower and in upper case."""
    import nibabel

    if path.name.endswith((*ENDINGS, *map(str.upper, ENDINGS))):
        return nibabel.load(path)  # type: ignore[attr-defined]
    with _stream(path) as stream:
        content = stream.read(MAX_VOLUME_BYTES)
    return nibabel.Nifti1Image.from_stream(io.BytesIO(content))  # type: ignore[attr-defined]


def _stream(path: Path) -> io.BufferedIOBase:
    """The bytes of a file, unpacked."""
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _refuse_long_gzip(path: Path) -> None:
    """Raises: DataError for packed bytes that take minutes to unpack, however few voxels their header claims."""
    if not path.name.lower().endswith(".gz"):
        return
    if (size := path.stat().st_size) > MAX_UNPACKED_BYTES:
        raise DataError(f"{printable(path.name)} has {size} bytes: at most {MAX_UNPACKED_BYTES} are read")
    with path.open("rb") as file:
        members = sum(piece.count(GZIP_MAGIC) for piece in iter(lambda: file.read(2**20), b""))
    if members > MOST_MEMBERS:
        raise DataError(f"{printable(path.name)} is {members} packed files: at most {MOST_MEMBERS} are read")


def _refuse_damaged_gzip(path: Path) -> None:
    """Raises: OSError or EOFError for packed bytes that are not those written: nibabel stops before their checksum; DataError
    for more of them than a volume has."""
    if not path.name.lower().endswith(".gz"):
        return
    with gzip.open(path) as stream:
        unpacked = 0
        while piece := stream.read(2**20):
            unpacked += len(piece)
            if unpacked > MAX_UNPACKED_BYTES:
                raise DataError(
                    f"{printable(path.name)} unpacks to more than {MAX_UNPACKED_BYTES} bytes: remove what is behind its voxels"
                )


def _refuse_long_header(path: Path) -> None:
    """Raises: DataError for a file whose values lie in its header, or so far behind that reading what is between takes memory.

    Source: NIfTI-1.1 and NIfTI-2, `sizeof_hdr` and `vox_offset`.
    """
    with _stream(path) as stream:
        header = stream.read(352)
    for order in "<>":
        size = struct.unpack(f"{order}i", header[:4])[0]
        kind, at = {348: ("f", 108), 540: ("q", 168)}.get(size, ("", 0))
        if kind and (offset := struct.unpack_from(order + kind, header, at)[0]) > MAX_HEADER_BYTES:
            raise DataError(
                f"{printable(path.name)} has its voxels at byte {offset:.0f}: at most {MAX_HEADER_BYTES} are read before them; "
                "save it without the extensions of its header"
            )
        if kind and offset < size and b"n+" in (header[4:6], header[344:346]):  # one file, and not values of their own
            raise DataError(f"{printable(path.name)} has its voxels at byte {offset:.0f}, within its header of {size}")


def _is_scaled(values: Any) -> bool:
    """Whether nibabel multiplies or adds, and so makes floats of eight bytes."""
    return (float(values.slope), float(values.inter)) != (1.0, 0.0)


def _check_header(file: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, is_scaled: bool) -> None:
    if len(shape) < FEWEST_AXES or min(shape) < 1:
        raise DataError(f"{file} is {list(shape)} voxels: expected two or three axes, none of them of length 0")
    if math.prod(shape) > MAX_VOXELS:
        raise DataError(f"{file} claims {math.prod(shape)} voxels: at most {MAX_VOXELS} are read")
    if dtype.names is not None or np.issubdtype(dtype, np.complexfloating):
        kind = "colours" if dtype.names is not None else "complex numbers"
        raise DataError(f"{file} holds {kind}: expected one real number a voxel; save each channel as one")
    if (size := math.prod(shape) * (8 if is_scaled else dtype.itemsize)) > MAX_VOLUME_BYTES:
        raise DataError(
            f"{file} claims {size} bytes of voxels: at most {MAX_VOLUME_BYTES} are read; crop it, or save it as integers"
        )
