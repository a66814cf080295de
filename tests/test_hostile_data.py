"""Images, archives and volumes that harm: each ends in one line that names the file, within the budget of memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetscope.base.errors import DataError
from unetscope.data import load, load_nifti, nifti, sources
from unetscope.data.decoding import MAX_DECODED_BYTES
from unetscope.data.grouping import MOST_LINES, read_groups
from unetscope.data.images import decode
from unetscope.data.jpeg_segments import MAX_EXIF_BYTES, MOST_MARKERS
from unetscope.data.nifti import read_nifti
from unetscope.data.problems import Unusable
from unetscope.data.sources import open_source
from unetscope.data.tiff_damage import refuse_damaged_strips
from unetscope.data.tiff_directories import MAX_PAGES, MOST_VALUES, MOST_VALUES_OF_A_PAGE, count_pages


def tiff(values: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def many_pages(n: int) -> bytes:
    """A TIFF of n empty directories, each of which leads to the next."""
    pages = b"".join(struct.pack("<HI", 0, 8 + 6 * (page + 1) if page + 1 < n else 0) for page in range(n))
    return b"II*\0" + struct.pack("<I", 8) + pages


def archive(path: Path, members: dict[str, bytes], method: int) -> Path:
    with zipfile.ZipFile(path, "w", method) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return path


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_corrupt_member_of_every_compression_is_named(tmp_path: Path, method: int) -> None:
    path = archive(
        tmp_path / "a.zip",
        {"images/a.png": png(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))},
        method,
    )
    content = path.read_bytes()
    for place in range(60, 2000, 97):
        harmed = bytearray(content)
        harmed[place] ^= 0x55
        path.write_bytes(harmed)
        try:
            with open_source(path) as source:
                decode(source.read("images/a.png"), "images/a.png")
        except (Unusable, DataError) as refused:
            assert "\n" not in str(refused)
            assert "a.png" in str(refused) or "a.zip" in str(refused)


# Deflate64, PKWARE's, Zstandard, MP3, XZ, JPEG, WavPack, PPMd, and none that there is
@pytest.mark.parametrize("method", [9, 10, 93, 94, 95, 96, 97, 98, 200])
def test_a_member_of_another_compression_is_named(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "a.zip", {"images/a.png": png(np.eye(8, dtype=np.uint8))}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        struct.pack_into("<H", content, content.index(signature) + place, method)
    path.write_bytes(content)
    with open_source(path) as source, pytest.raises(Unusable, match=r"a\.png: it cannot be unpacked \(.*compression"):
        source.read("images/a.png")


def test_pages_are_counted_by_their_chain_and_a_circle_ends() -> None:
    assert [count_pages(many_pages(n)) for n in (1, 2, 5_000)] == [1, 2, 5_000]
    assert count_pages(many_pages(MAX_PAGES + 5)) == MAX_PAGES
    assert count_pages(b"II*\0" + struct.pack("<IHI", 8, 0, 8)) == 1
    for options in ({}, {"bigtiff": True}, {"byteorder": ">"}):
        assert count_pages(tiff(np.zeros((3, 8, 8), np.uint8), photometric="minisblack", **options)) == 3
    with pytest.raises(Unusable, match=r"a\.tif: its header claims 0x0 pixels"):
        decode(many_pages(MAX_PAGES), "a.tif")


def test_pixels_beyond_the_budget_are_refused_from_the_header() -> None:
    content = tiff(np.zeros((16, 16, 4), np.float64), photometric="rgb")
    large = content
    for side, kind in ((256, 3), (257, 3), (256, 4), (257, 4)):
        large = large.replace(struct.pack("<HHII", side, kind, 1, 16), struct.pack("<HHII", side, 4, 1, 7900))
    tracemalloc.start()
    with pytest.raises(Unusable, match=r"a\.tif: its header claims 1997120000 bytes of pixels, more than the 256 MiB"):
        decode(large, "a.tif")
    assert tracemalloc.get_traced_memory()[1] < MAX_DECODED_BYTES / 16
    tracemalloc.stop()


def with_numbers(tag: int, kind: int, n: int, value: bytes, *, pages: int = 1, big: bool = False) -> bytes:
    """A TIFF of one pixel with a tag of so many numbers, all pages with the same ones."""
    tags = {
        256: (3, 1, 1),
        257: (3, 1, 1),
        258: (3, 1, 8),
        262: (3, 1, 1),
        273: (4, 1, 0),
        279: (4, 1, 1),
        tag: (kind, n, 32),
    }
    offset, count = ("Q", "Q") if big else ("I", "H")
    content = struct.pack("<HHHQ", 43, 8, 0, 0) if big else struct.pack("<HI", 42, 0)
    content = bytearray((b"II" + content).ljust(32, b"\0") + value * n)
    at, place = (8, 8) if big else (4, 4)
    for _ in range(pages):
        struct.pack_into(f"<{offset}", content, at, len(content))
        content += struct.pack(f"<{count}", len(tags))
        content += b"".join(struct.pack(f"<HH{offset}{offset}", name, *about) for name, about in sorted(tags.items()))
        at = len(content)
        content += bytes(place)
    return bytes(content)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("tag", "kind", "share", "value"),
    [
        (273, 4, 1.0, struct.pack("<I", 32)),  # places of strips
        (324, 4, 1.0, struct.pack("<I", 32)),  # and of tiles
        (282, 5, 0.25, struct.pack("<II", 1, 1)),  # fractions
        (339, 12, 1.0, struct.pack("<d", 1.0)),
        (65000, 3, 1.0, struct.pack("<H", 8)),  # a tag of nobody's
    ],
)
def test_a_tiff_with_millions_of_numbers_in_its_directory_is_refused(
    tag: int, kind: int, share: float, value: bytes, big: bool
) -> None:
    content = with_numbers(tag, kind, int(MOST_VALUES_OF_A_PAGE * share) + 1, value, big=big)
    with pytest.raises(
        Unusable, match=r"a\.tif: the directory of its page 1 has 10485\d\d numbers, more than the 1048576"
    ):
        decode(content, "a.tif")


def test_a_tiff_of_pages_that_share_their_numbers_is_refused() -> None:
    content = with_numbers(65000, 3, MOST_VALUES_OF_A_PAGE // 2, b"\10\0", pages=9)
    assert decode(content, "a.tif").values.tolist() == [[ord("I")]]
    with pytest.raises(
        Unusable, match=rf"a\.tif: the directories of its pages have more numbers than the {MOST_VALUES}"
    ):
        decode(content, "a.tif", are_slices=True)


def test_texts_and_bytes_beside_the_pixels_of_a_tiff_are_no_numbers() -> None:
    for kind in (1, 2, 7):
        assert decode(with_numbers(65000, kind, 2 * MOST_VALUES_OF_A_PAGE, b"a"), "a.tif").values.shape == (1, 1)


def with_exif(kind: str, values: int) -> bytes:
    """A PNG or a JPEG whose note of its orientation is a list of fractions."""
    fractions = struct.pack("<II", 1, 1) * values
    exif = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 274, 5, values, 26) + bytes(4) + fractions
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(stream, "JPEG" if kind == "JPEG" else "PNG")
    content = stream.getvalue()
    if kind == "JPEG":
        pieces = [b"Exif\0\0" + exif[place : place + 60_000] for place in range(0, len(exif), 60_000)]
        return (
            content[:2] + b"".join(struct.pack(">HH", 0xFFE1, len(piece) + 2) + piece for piece in pieces) + content[2:]
        )
    about = b"tEXtRaw profile type exif\0\nexif\n1\n" + exif.hex().encode() if kind == "text" else b"eXIf" + exif
    chunk = struct.pack(">I", len(about) - 4) + about + struct.pack(">I", zlib.crc32(about))
    place = len(content) - 12 if kind == "behind the pixels" else 33
    return content[:place] + chunk + content[place:]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["JPEG", "chunk", "text", "behind the pixels"])
def test_millions_of_numbers_in_exif_are_refused(kind: str) -> None:
    assert decode(with_exif(kind, 10), "a.img").orientation == 1
    with pytest.raises(Unusable, match=r"a\.img: it has \d+ bytes of EXIF, more than the 4194304 that are read"):
        decode(with_exif(kind, MAX_EXIF_BYTES // 8), "a.img")


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_pixels_are_refused(dtype: type) -> None:
    with pytest.raises(Unusable, match=r"a\.tif: its pixels are complex numbers"):
        decode(tiff(np.ones((8, 8), dtype)), "a.tif")


def test_a_jpeg_of_many_scans_is_refused_undecoded() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((1024, 1024), np.uint8)).save(stream, "JPEG", progressive=True)
    content = stream.getvalue()
    assert decode(content, "a.jpg").values.shape == (1024, 1024)
    last = content[content.rfind(b"\xff\xda") : -2]
    with pytest.raises(Unusable, match=r"a\.jpg: it goes 40\d\d times through 1048576 bytes of pixels"):
        decode(content[:-2] + 4000 * last + content[-2:], "a.jpg")


@pytest.mark.parametrize("marker", [b"\xff", b"\xff\xfe\0\2", b"\xff\xe1\0\2", b"\xff\xc0\0\2", b"\xff\x02\0\2"])
def test_a_jpeg_of_millions_of_markers_is_refused_unread(marker: bytes) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(stream, "JPEG")
    content = stream.getvalue()
    with pytest.raises(Unusable, match=r"a\.jpg: it has more than the 1048576 markers that are read"):
        decode(content[:2] + marker * (2 * MOST_MARKERS // len(marker) * len(marker) + 1) + content[2:], "a.jpg")


def contents(path: Path, members: int, claimed: int | None = None, room: int = 0) -> Path:
    """An archive that is a table of contents alone. claimed: its length, as the archive has it. room: a hole before it."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    with path.open("wb") as file:
        file.seek(room)
        file.write(entry * members)
        size = len(entry) * members if claimed is None else claimed
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, min(room, 2**31), 0))
    return path


def test_a_table_of_contents_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"many\.zip has 300000 members, more than 200000: split the archive"):
        load(contents(tmp_path / "many.zip", 300_000))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"hole\.zip has a table of contents of 4294967280 bytes, more than 67108864"):
        load(contents(tmp_path / "hole.zip", 1, 2**32 - 16, room=6 * 2**30))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_an_archive_of_zeros_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "TOTAL_RATIO_COUNTS_FROM_BYTES", 2**22)
    members = {f"images/{number}.png": bytes(2**20) for number in range(8)}
    path = archive(tmp_path / "zeros.zip", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"zeros\.zip unpacks to 8388608 bytes from \d+: nothing was read"):
        load(path)


def test_nested_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(40):
        folder /= "f"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"has folders nested more than 32 deep \(f/f/f"):
        load(tmp_path)


def test_a_sparse_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.zip"
    with sparse.open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(DataError, match=r"sparse\.zip is not a whole zip"):
        load(sparse)
    (tmp_path / "set" / "images").mkdir(parents=True)
    with (tmp_path / "set" / "images" / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"images/a\.png: (it is larger than 256 MiB|no file masks)"):
        load(tmp_path / "set")


def test_a_volume_beyond_the_budget_is_refused_from_its_header(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")

    path = tmp_path / "a.nii.gz"
    for kind, shape, what in (
        (np.uint8, (1000, 1000, 500), r"a\.nii\.gz claims 500000000 voxels: at most 134217728 are read"),
        (np.float64, (500, 500, 500), r"a\.nii\.gz claims 1000000000 bytes of voxels: at most 671088640 are read"),
        (np.complex128, (4, 4, 4), r"a\.nii\.gz holds complex numbers"),
    ):
        header = nibabel.Nifti1Header()
        header.set_data_dtype(kind)
        header.set_data_shape(shape)
        header["vox_offset"], header["magic"] = 352, b"n+1\0"
        path.write_bytes(gzip.compress(header.binaryblock + bytes(4 + 1024)))
        with pytest.raises(DataError, match=what):
            load_nifti([path], [path], size=(4, 4, 4))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".Nii.Gz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_what_lies_between_a_header_and_its_volume_is_bounded(tmp_path: Path, order: str, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel")

    path = tmp_path / f"a{ending}"
    for header, extension in (
        (nibabel.Nifti1Header(endianness=order), 348),
        (nibabel.Nifti2Header(endianness=order), 540),
    ):
        header.set_data_shape((4, 4, 4))
        header["vox_offset"] = 2**30
        content = header.binaryblock + b"\1\0\0\0" + struct.pack(f"{order}ii", 2**30 - extension - 20, 6)
        path.write_bytes(gzip.compress(content) if ending.lower().endswith(".gz") else content)
        with pytest.raises(DataError, match=rf"a{ending} has its voxels at byte 1073741824: at most 4194304 are read"):
            load_nifti([path], [path], size=(4, 4, 4))


def test_a_png_with_another_bit_in_its_pixels_is_refused() -> None:
    """Pillow compares no checksum of them."""
    values = np.zeros((64, 64), np.uint8)
    values[20:40, 10:50] = 255
    whole, chance = png(values), random.Random(0)
    first = whole.index(b"IDAT") + 4
    last = first + struct.unpack(">I", whole[first - 8 : first - 4])[0]
    for _ in range(60):
        data = bytearray(whole)
        data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
        with pytest.raises(Unusable, match="its chunk IDAT is damaged: its checksum differs"):
            decode(bytes(data), "mask.png")
    assert decode(whole, "mask.png").values.any()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_volume_with_other_bytes_is_refused(tmp_path: Path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not here")
    values = np.random.default_rng(0).integers(0, 4000, (32, 32, 20)).astype(np.int16)
    path = tmp_path / f"volume{ending}"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    whole, chance = path.read_bytes(), random.Random(0)
    if ending == ".nii.gz":
        for _ in range(20):
            data = bytearray(whole)
            data[chance.randrange(len(data) // 4, len(data) - 8)] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            with pytest.raises(DataError, match=r"volume.nii.gz cannot be read as NIfTI"):
                read_nifti(path)
        return
    for changes, text in (
        ([(108, "<f", 0.0)], "has its voxels at byte 0, within its header of 348"),
        ([(252, "<2h", 1, 1), (256, "<f", 5.0)], "cannot be read as NIfTI: w2 should be positive"),
    ):
        data = bytearray(whole)
        for place, kind, *numbers in changes:
            struct.pack_into(kind, data, place, *numbers)
        path.write_bytes(data)
        with pytest.raises(DataError, match=text):
            read_nifti(path)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_table_of_groups_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"groups.csv is not a file: expected a table with the columns name,group"):
        read_groups(path)


MASK = np.add.outer(np.arange(48), np.arange(32)) % 13 < 6
HARMED_TIFFS = {  # a compression, and what becomes of 60 files with one other bit: refused at least so often
    "group3": 2,  # no checksum, but code words that are none
    "group4": 10,
    "tiff_ccitt": 4,
    "tiff_lzw": 10,
    "lzma": 40,
    "tiff_adobe_deflate": 57,  # all that change a pixel
}


@pytest.mark.parametrize("compression", HARMED_TIFFS)
def test_a_tiff_whose_damage_can_be_seen_is_refused_without_a_word_of_libtiff(
    compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    image, stream = Image.fromarray(MASK), io.BytesIO()
    image.save(stream, "TIFF", compression=compression)
    whole = stream.getvalue()
    with Image.open(io.BytesIO(whole)) as tiff:
        begins, n_bytes = tiff.tag_v2[273][0], tiff.tag_v2[279][0]
    refused = 0
    for number in range(60):
        chance, harmed = random.Random(number), bytearray(whole)
        harmed[begins + chance.randrange(n_bytes)] ^= 1 << chance.randrange(8)
        try:
            pixels = decode(bytes(harmed), "a.tif", indexed=True).values
        except Unusable as error:
            refused += 1
            assert "a.tif: it is " in str(error)
            assert "damaged" in str(error)
            continue
        if compression == "tiff_adobe_deflate":
            assert (pixels == decode(whole, "a.tif", indexed=True).values).all()
    assert refused >= HARMED_TIFFS[compression]
    assert capfd.readouterr() == ("", "")


def test_libtiff_prints_outside_as_it_did(capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    Image.fromarray(MASK).save(stream, "TIFF", compression="group4")
    with Image.open(io.BytesIO(stream.getvalue())) as tiff:
        begins = tiff.tag_v2[273][0]
    harmed = bytearray(stream.getvalue())
    harmed[begins : begins + 4] = b"\xff" * 4
    with pytest.raises(Unusable, match=r"^a\.tif: it is truncated or damaged"):
        decode(bytes(harmed), "a.tif")
    assert capfd.readouterr() == ("", "")
    with Image.open(io.BytesIO(harmed)) as tiff:
        tiff.load()
    assert "Bad code word" in capfd.readouterr().err


def test_a_tiff_of_which_a_tile_ends_early_is_refused() -> None:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.repeat(np.uint8(MASK), 2, 0), tile=(16, 16), compression="zlib")
    with Image.open(io.BytesIO(stream.getvalue())) as tiff:
        begins, n_bytes = (tiff.tag_v2[tag][2] for tag in (324, 325))
    harmed = bytearray(stream.getvalue())
    tile = zlib.compressobj()
    begun = tile.compress(bytes(16)) + tile.flush(zlib.Z_SYNC_FLUSH)
    harmed[begins : begins + n_bytes] = begun[:n_bytes].ljust(n_bytes, b"\0")
    with pytest.raises(Unusable, match=r"^a\.tif: it is (truncated or )?damaged"):
        decode(bytes(harmed), "a.tif")


def test_a_table_of_groups_of_no_name_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"a\\x00b.csv is not a name of a file: expected a table with the columns name,group"
    ):
        read_groups(Path("a\0b.csv"))


@pytest.mark.parametrize("ends", ["\n", "\r", "\r\n", "x,y\n", ",\n"])
def test_a_table_of_groups_of_millions_of_lines_is_refused(ends: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes(b"name,group\n" + ends.encode() * (MOST_LINES + 1))
    with pytest.raises(DataError, match=rf"groups.csv has more than {MOST_LINES} lines"):
        read_groups(path)


@pytest.mark.parametrize("row", ["{},a", "a,{}", "a,b\n{},a", '"{}",a', "a,{},b"])
def test_a_name_without_end_in_a_table_of_groups_is_refused(row: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(f"name,group\n{row.format(chr(0x301) * 50_000)}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"groups.csv, line [23]: a name has 50000 letters, at most 4096 are read"):
        read_groups(path)


@pytest.mark.parametrize(
    "kind", ["zeros", "a hole", "packed files behind it", "packed files before it", "a large hole"]
)
def test_a_packed_volume_without_end_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 4), np.float32), np.eye(4)), path)
    content, empty = path.read_bytes(), gzip.compress(b"")
    monkeypatch.setattr(nifti, "MAX_UNPACKED_BYTES", 2**24)
    behind = {
        "zeros": gzip.compress(bytes(2**24)), "a hole": b"", "a large hole": b"",
        "packed files behind it": empty * 100_001, "packed files before it": b"",
    }[kind]  # fmt: skip
    before = empty * 100_001 if kind == "packed files before it" else b""
    path.write_bytes(before + content + behind)
    if kind in ("a hole", "a large hole"):
        os.truncate(path, 2**40 if kind == "a large hole" else 2**24 + 1)
    said = (
        "is 10000[12] packed files"
        if "packed" in kind
        else "unpacks to more than"
        if kind == "zeros"
        else r"has \d+ bytes"
    )
    with pytest.raises(DataError, match=rf"a\.nii\.gz {said}"):
        read_nifti(path)


@pytest.mark.parametrize("code", [0, 1, -1, 1536, 2048])
def test_a_volume_of_another_type_is_refused_in_a_line(code: int, tmp_path: Path) -> None:
    """nibabel prints to the standard error what it makes of a header, by a handler that it sets when it is imported."""
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 4), np.float32), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, 70, code)
    path.write_bytes(content)
    program = f"import unetscope.data.nifti, pathlib; unetscope.data.nifti.read_nifti(pathlib.Path({str(path)!r}))"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    lines = [line for line in ended.stderr.splitlines() if "data code" in line]
    assert lines == [f"unetscope.base.errors.DataError: a.nii cannot be read as NIfTI: {lines[0].rpartition(': ')[2]}"]


@pytest.mark.parametrize("rows", [1, 2, 4, 100, 2000])
def test_strips_that_each_claim_the_whole_file_are_read_once(rows: int) -> None:
    """What Deflate leaves over of a strip's bytes was copied for each strip, and for each piece that it gave."""
    height, packed = 2000, zlib.compress(bytes(8 * rows))
    strips = height // rows
    tags = {
        256: (3, 1, struct.pack("<I", 8)), 257: (3, 1, struct.pack("<I", height)), 258: (3, 1, struct.pack("<I", 8)),
        259: (3, 1, struct.pack("<I", 8)), 262: (3, 1, struct.pack("<I", 1)), 273: (4, strips, struct.pack("<I", 8) * strips),
        278: (3, 1, struct.pack("<I", rows)), 279: (4, strips, struct.pack("<I", len(packed) + 10**7) * strips),
    }  # fmt: skip
    content = bytearray(b"II*\0" + bytes(4) + packed + bytes(10**7))
    entries = b""
    for tag, (kind, n, value) in tags.items():
        is_here = len(value) <= 4
        entries += struct.pack("<HHI", tag, kind, n) + (value if is_here else struct.pack("<I", len(content)))
        content += b"" if is_here else value
    struct.pack_into("<I", content, 4, len(content))
    content += struct.pack("<H", len(tags)) + entries + bytes(4)
    began = time.process_time()
    refuse_damaged_strips(bytes(content), {259: 8, 273: (8,) * strips, 279: (len(packed) + 10**7,) * strips}, "a.tif")
    assert decode(bytes(content), "a.tif").values.shape == (height, 8)
    assert time.process_time() - began < 5
