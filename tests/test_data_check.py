"""`check`, the guard in `load`, and files made to do harm."""

from __future__ import annotations

import io
import re
import shlex
import struct
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from unetscope.base import printable
from unetscope.base.errors import DataError
from unetscope.cli.main import app
from unetscope.data import check, load
from unetscope.data.problems import KINDS

GREY = np.random.default_rng(1).integers(0, 256, (12, 16), np.uint8)
MASK = np.zeros((12, 16), np.uint8)
MASK[3:9, 4:12] = 255


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(values, orientation=1):
    stream, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(values).save(stream, "PNG", exif=exif if orientation > 1 else None)
    return stream.getvalue()


def jpeg(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "JPEG", quality=70)
    return stream.getvalue()


def tiff(values, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def hand_made_png(width, height, depth, colour, data=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def lay(folder, files):
    for name, data in {"images/ok.png": png(GREY), "masks/ok.png": png(MASK), **files}.items():
        if data is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return folder


CASES = {
    "text as PNG": ("not-an-image", {"images/ok.png": b"hello"}, "images/ok.png: its content is not PNG, TIFF or JPEG"),
    "GIF": ("not-an-image", {"images/b.gif": b"GIF89a"}, "images/b.gif: its name does not end in .png, .tif or .jpg"),
    "nothing in it": ("not-an-image", {"masks/ok.png": b""}, "masks/ok.png: it is empty"),
    "truncated": ("unreadable", {"masks/ok.png": png(MASK)[:60]}, "masks/ok.png: it is truncated or damaged"),
    "bomb": ("too-large", {"images/ok.png": hand_made_png(20000, 20000, 8, 0, bytes(9))},
             "images/ok.png: its header claims 20000x20000 pixels, more than the 64 million"),
    "TIFF bomb": ("too-large", {"images/ok.png": tiff(np.zeros((8001, 8001), bool), compression=None)},
                  "its header claims 8001x8001 pixels"),
    "pages": ("several-pages", {"images/ok.png": tiff(np.stack([GREY] * 3), photometric="minisblack")},
              "it has 3 pages, of which the first is read"),
    "fractions": ("pixel-type", {"images/ok.png": tiff(GREY.astype(np.float32) / 7)}, "its pixels are float32 between"),
    "16 bit colour PNG": ("16-bit-colour-png", {"images/ok.png": hand_made_png(16, 12, 16, 2, bytes(12 * 97))},
                          "of its 16 bits a colour only the upper 8 are read"),
    "two of a stem": ("same-stem", {"images/ok.tif": tiff(GREY)}, "images/ok.png has the same stem"),
    "two sets": ("several-sets", {"more/images/ok.png": png(GREY)}, "it lies in another data set than the top folder"),
    "no mask": ("image-without-mask", {"images/b.png": png(GREY)}, "images/b.png: no file masks/b.* belongs to it"),
    "no image": ("mask-without-image", {"masks/b.png": png(MASK)}, "masks/b.png: no file images/b.* belongs to it"),
    "sizes": ("size-mismatch", {"masks/ok.png": png(MASK[:9])},
              "masks/ok.png: the mask is 16x9, its image images/ok.png 16x12 pixels"),
    "empty": ("all-empty", {"masks/ok.png": png(MASK * 0)}, "no pixel of any of its 1 masks is foreground: give masks with "
              "objects, or the folder in which they are, or --accept all-empty"),
    "turned alone": ("orientation", {"images/ok.png": png(GREY, orientation=3)}, "masks/ok.png: it notes orientation 1, its "
                     "image images/ok.png 3: which way the mask was drawn is not known"),
    "full": ("full-mask", {"masks/ok.png": png(MASK | 255)}, "masks/ok.png: every pixel is foreground"),
    "soft outline": ("mask-values", {"masks/ok.png": png(np.where(MASK > 0, GREY | 128, 0).astype(np.uint8))},
                     "greys of soft outlines, neither two values nor numbered objects"),
    "fractions in a mask": ("mask-values", {"masks/ok.png": tiff(GREY / np.float32(255))}, "not whole numbers"),
    "negative": ("mask-values", {"masks/ok.png": tiff(MASK.astype(np.int16) - GREY)}, "negative numbers mean nothing"),
    "coloured": ("mask-colour", {"masks/ok.png": png(np.dstack([MASK, MASK, MASK // 2]))}, "the mask has colours"),
    "JPEG": ("jpeg-mask", {"masks/ok.png": jpeg(MASK)}, "JPEG compression left"),
    "dark": ("dark-16-bit", {"images/ok.png": png(GREY.astype(np.uint16))}, "of 65535"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_named_and_can_be_accepted(tmp_path, case, cache):
    kind, files, text = CASES[case]
    folder = lay(tmp_path / "set", files)
    assert kind in KINDS
    problems = check(folder)
    [problem] = [p for p in problems if p.kind == kind]
    assert text in str(problem) and "\n" not in str(problem) and f"--accept {kind}" in problem.mend
    assert kind not in {p.kind for p in check(folder, accept=[kind])}
    if problem.severity == "warning":
        with pytest.warns(UserWarning, match=re.escape(str(problem))):
            assert len(load(folder)) == 1
        assert len(load(folder, accept=[kind])) == 1  # and says nothing
        return
    with pytest.raises(DataError) as error:
        load(folder)
    assert "\n" not in str(error.value) and str(problems[0]) in str(error.value)
    assert not list(cache.glob("data/*"))


def test_all_problems_in_a_stable_order(tmp_path):
    files = {"images/c.png": b"x", "masks/c.png": png(MASK), "images/b.png": png(GREY), "masks/ok.png": png(MASK | 255)}
    folder = lay(tmp_path / "set", files)
    assert [(p.file, p.kind) for p in check(folder)] == [
        ("images/b.png", "image-without-mask"),
        ("images/c.png", "not-an-image"),
        ("masks/ok.png", "full-mask"),
    ]
    with pytest.raises(DataError) as error:
        load(folder)
    assert str(error.value).startswith(f"3 problems in {folder}: images/b.png: no file masks/b.* belongs to it")
    assert str(error.value).endswith(f"; and 2 more: run `unetscope check-data {folder}` to see all")


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({"masks": "binary"}, "--masks binary"),
        ({"masks": "classes", "classes": 2}, "--masks classes --classes 2"),
        ({"classes": 2, "ignore": 255}, "--classes 2 --ignore 255"),
        ({"masks": "binary", "image_size": (32, 48)}, "--image-size 32x48 --masks binary"),
        ({"masks": "binary", "accept": ["full-mask"]}, "--masks binary --accept full-mask"),
    ],
)
def test_the_command_that_an_error_names_shows_the_same_problems(tmp_path, asked, options):
    numbered = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) % 4
    folder = lay(tmp_path / "a set", {f"{part}/{i}.png": png(numbered) for part in ("images", "masks") for i in "ab"})
    with pytest.raises(DataError) as error:
        load(folder, **asked)
    command = str(error.value).partition("run `")[2].partition("` to see all")[0]
    assert command == f"unetscope check-data '{folder}' {options}"
    listed = CliRunner().invoke(app, shlex.split(command)[1:])
    assert listed.exit_code == 2 and f"{str(error.value).split()[0]} error" in listed.output


def test_accepting_leaves_out_what_cannot_be_used(tmp_path):
    folder = lay(tmp_path / "set", {"images/b.png": b"x", "masks/b.png": png(MASK)})
    assert load(folder, accept=["not-an-image"]).names == ("ok",)
    with pytest.raises(DataError, match="has no image with a mask that can be used"):
        load(lay(tmp_path / "set", {"masks/ok.png": b"x"}), accept=["not-an-image"])


def test_a_jpeg_mask_is_cut_at_half_when_accepted(tmp_path):
    folder = lay(tmp_path / "set", {"masks/ok.png": jpeg(MASK)})
    np.testing.assert_array_equal(load(folder, image_size=(12, 16), accept=["jpeg-mask"]).masks[0], MASK > 0)


def test_validation_images_that_were_trained_on(tmp_path):
    train, validation = lay(tmp_path / "train", {}), lay(tmp_path / "held", {"images/ok.png": png(GREY)})
    [problem] = check(train, validation=validation)
    assert str(problem).startswith("held/ok: its pixels are those of the training image ok")


def test_lost_foreground_is_a_warning(tmp_path):
    dot = np.zeros((64, 64), np.uint8)
    dot[5, 5] = 1
    folder = lay(tmp_path / "set", {"images/ok.png": png(dot), "masks/ok.png": png(dot)})
    [problem] = check(folder, image_size=8)
    assert (problem.kind, problem.severity) == ("vanished-mask", "warning")
    assert str(problem).startswith("masks/ok.png: the foreground of 1 pixels is lost at 8x8")


def test_lost_foreground_of_several_objects_is_that_of_all_their_files(tmp_path):
    dots = np.zeros((2, 64, 64), np.uint8)
    dots[0, 5, 5] = dots[1, 30, 30] = 1
    files = {"ok/images/ok.png": png(GREY)} | {f"ok/masks/{k}.png": png(dot) for k, dot in enumerate(dots)}
    images = {"ok/images/ok.png": png(np.resize(GREY, (64, 64)))}
    [problem] = check(
        lay(tmp_path / "set", files | images | {"images/ok.png": None, "masks/ok.png": None}), image_size=8
    )
    assert str(problem).startswith("the 2 masks in ok/masks: the foreground of 2 pixels is lost at 8x8")


def test_bowl_layout_problems(tmp_path):
    files = {
        "x1/images/x1.png": png(GREY), "x1/masks/1.png": png(MASK | 255), "x1/masks/2.png": png(MASK * 0),
        "x2/images/x2.png": png(GREY), "x3/masks/1.png": png(MASK), "x4/images/x4.png": png(GREY),
        "x4/images/y.png": png(GREY), "x4/masks/1.png": png(MASK), "images/ok.png": None, "masks/ok.png": None,
    }  # fmt: skip
    assert [(p.file, p.kind) for p in check(lay(tmp_path / "set", files))] == [
        ("x1/masks", "full-mask"),
        ("x2/images/x2.png", "image-without-mask"),
        ("x3/masks/1.png", "mask-without-image"),
        ("x4/images/y.png", "several-images"),
    ]


@pytest.mark.parametrize("as_mask", [False, True])
def test_truncated_anywhere(tmp_path, as_mask):
    whole = png(GREY if not as_mask else MASK)
    name = "masks/ok.png" if as_mask else "images/ok.png"
    for end in range(1, len(whole), 10):
        [problem] = check(lay(tmp_path / "set", {name: whole[:end]}))
        assert problem.file == name and problem.kind in ("unreadable", "not-an-image"), end


@pytest.mark.parametrize("suffix", ["jpeg", "tiff"])
def test_truncated_tiff_and_jpeg(tmp_path, suffix):
    whole = jpeg(GREY) if suffix == "jpeg" else tiff(GREY.astype(np.uint16) * 99)
    for end in range(1, len(whole) - 40, 37):
        [problem] = check(lay(tmp_path / "set", {"images/ok.png": whole[:end]}))
        assert problem.kind in ("unreadable", "not-an-image"), end


HOSTILE = {
    "/etc/passwd": "has an absolute name",
    "../up.png": "leads out of the archive",
    "a/../../up.png": "leads out of the archive",
    "C:/up.png": "names a drive",
    "images\\a.png": "has a backslash",
    "__MACOSX/../../up.png": "leads out of the archive",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stop_everything(tmp_path, name):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/ok.png", png(GREY))
        archive.writestr("masks/ok.png", png(MASK))
        archive.writestr(name, b"x")
    for door in (load, check):
        with pytest.raises(DataError) as error:
            door(path)
        assert f"has a member {name!r} that {HOSTILE[name]}" in str(error.value)
        assert "nothing was read" in str(error.value)


def test_hostile_bounds(tmp_path, monkeypatch):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.png", bytes(10**6))
        archive.writestr("images/b.png", b"")
    monkeypatch.setattr("unetscope.data.sources.RATIO_COUNTS_FROM_BYTES", 1000)
    with pytest.raises(DataError, match=r"'images/a.png' that unpacks to 1000000 bytes from \d+: nothing was read"):
        load(path)
    monkeypatch.setattr("unetscope.data.sources.MAX_TOTAL_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to 1000000 bytes, more than 1000: split the archive"):
        load(path)
    monkeypatch.setattr("unetscope.data.sources.MAX_MEMBERS", 1)
    with pytest.raises(DataError, match="has 2 members, more than 1: split the archive"):
        load(path)


def test_members_that_are_links_or_twice_there(tmp_path):
    link = zipfile.ZipInfo("images/a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'images/a.png' that is a link"):
        load(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(DataError, match="'a' that is there twice"):
        load(tmp_path / "twice.zip")


def test_members_in_one_place_are_refused(tmp_path):
    """A thousand entries of one image's bytes would be a thousand images to decode."""
    path = tmp_path / "quine.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", bytes(1000))
        archive.writestr("b.png", bytes(1000))
        archive.infolist()[1].header_offset = archive.infolist()[0].header_offset
    with pytest.raises(DataError, match=r"quine\.zip has members 'a\.png' and 'b\.png' in the same place"):
        load(path)


def test_links_are_not_followed_silently(tmp_path):
    elsewhere = lay(tmp_path / "elsewhere", {})
    folder = lay(tmp_path / "set", {})
    (folder / "images/b.png").symlink_to(elsewhere / "images/ok.png")
    (folder / "masks/b.png").symlink_to(folder / "masks/ok.png")
    problems = check(folder)
    assert [(p.file, p.kind) for p in problems] == [("images/b.png", "link"), ("masks/b.png", "mask-without-image")]
    assert problems[0].what == "it is a link that leaves the folder, which is not followed"
    assert load(folder, accept=["link"]).names == ("b", "ok")
    (folder / "circle").symlink_to(folder)
    assert load(folder, accept=["link"]).names == ("b", "ok")


@pytest.mark.parametrize("where", [0, 10, -30, -10])
def test_broken_zip(tmp_path, where):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/ok.png", png(GREY))
    path.write_bytes(path.read_bytes()[:where] if where else b"not a zip")
    with pytest.raises(DataError, match=r"set.zip is not a whole zip \(.*\): expected a folder or a zip with images/"):
        load(path)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist: expected a folder or a zip with images/ and masks/"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: there are no images: give a folder or zip with images/ and masks/"):
        load(tmp_path / "empty")


def test_names_are_safe_for_terminals(tmp_path):
    folder = lay(tmp_path / "set", {"images/\x1b[31mred\n.png": png(GREY)})
    [problem] = check(folder)
    assert problem.file == "images/\\x1b[31mred\\n.png" and str(problem).isprintable()
    assert printable("\udcff\u202e") == "\\udcff\\u202e"
