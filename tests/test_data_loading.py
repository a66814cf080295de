"""`load` on every kind of file, zip against folder, and the cache."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unetscope.base.errors import DataError, InvalidArgument
from unetscope.data import load, paper_split, shared_images
from unetscope.data.bbbc038 import manifest
from unetscope.data.images import Pixels
from unetscope.data.masks import foreground
from unetscope.data.resizing import resize_image, resize_mask
from unetscope.data.segmentation import SegmentationData

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 16), np.uint8)
COLOUR = RNG.integers(0, 256, (12, 16, 3), np.uint8)
MASK = np.zeros((12, 16), np.uint8)
MASK[3:9, 4:12] = 1
REAL = Path(os.environ.get("UNETSCOPE_DSB2018") or Path(__file__).parents[2] / "shared/data/dsb2018")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encoded(values, suffix=".png", **options):
    stream = io.BytesIO()
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(stream, {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}[suffix], **options)
    return stream.getvalue()


def tiff(values, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def lay(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


PALETTE = Image.fromarray(COLOUR).quantize(16)
ALPHA = np.dstack([COLOUR, np.full((12, 16), 9, np.uint8)])
GREY_ALPHA = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(MASK)])
IMAGES = {
    "grey": ("a.png", encoded(GREY), GREY[None]),
    "upper case": ("a.PNG", encoded(GREY), GREY[None]),
    "colour": ("a.png", encoded(COLOUR), COLOUR.transpose(2, 0, 1)),
    "alpha dropped": ("a.png", encoded(ALPHA), COLOUR.transpose(2, 0, 1)),
    "grey alpha": ("a.png", encoded(GREY_ALPHA), GREY[None]),
    "palette": ("a.png", encoded(PALETTE), np.asarray(PALETTE.convert("RGB")).transpose(2, 0, 1)),
    "1 bit": ("a.png", encoded(Image.fromarray(GREY > 99)), (GREY > 99)[None] * np.uint8(255)),
    "16 bit PNG": ("a.png", encoded(GREY.astype(np.uint16) * 200), GREY[None].astype(np.uint16) * 200),
    "16 bit TIFF": ("a.tif", tiff(GREY.astype(np.uint16) * 200), GREY[None].astype(np.uint16) * 200),
    "big-endian": ("a.tif", tiff(GREY.astype(">u2") * 200, byteorder=">"), GREY[None].astype(np.uint16) * 200),
    "16 bit RGB": (
        "a.TIFF",
        tiff(COLOUR.astype(np.uint16) * 200, photometric="rgb"),
        COLOUR.transpose(2, 0, 1).astype(np.uint16) * 200,
    ),
    "16 bit RGB planar": (
        "a.tif",
        tiff(COLOUR.transpose(2, 0, 1).astype(np.uint16) * 200, photometric="rgb", planarconfig="separate"),
        COLOUR.transpose(2, 0, 1).astype(np.uint16) * 200,
    ),
    "8 bit TIFF": ("a.tif", encoded(COLOUR, ".tif", compression="tiff_lzw"), COLOUR.transpose(2, 0, 1)),
    "JPEG": (
        "a.JPEG",
        encoded(COLOUR, ".jpg"),
        np.asarray(Image.open(io.BytesIO(encoded(COLOUR, ".jpg")))).transpose(2, 0, 1),
    ),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image(tmp_path, kind):
    name, data, pixels = IMAGES[kind]
    read = load(lay(tmp_path / "set", {f"images/{name}": data, "masks/a.png": encoded(MASK)}), image_size=(12, 16))
    assert read.images.dtype == pixels.dtype
    np.testing.assert_array_equal(read.images[0], pixels)
    np.testing.assert_array_equal(read.masks[0], MASK)


INSTANCES = np.cumsum(MASK, axis=1, dtype=np.uint8) * MASK
COLOURED = Image.fromarray(INSTANCES)
COLOURED.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
GREY_PALETTE = Image.fromarray(1 - MASK)
GREY_PALETTE.putpalette([255] * 3 + [0] * 3)
MASKS = {
    "0/1": ("a.png", encoded(MASK)),
    "0/255": ("a.png", encoded(MASK * np.uint8(255))),
    "1 bit": ("a.png", encoded(Image.fromarray(MASK > 0))),
    "RGB greys": ("a.png", encoded(np.dstack([MASK * np.uint8(255)] * 3))),
    "instances": ("a.png", encoded(INSTANCES)),
    "instances with coloured palette": ("a.png", encoded(COLOURED)),
    "grey palette, 0 is white": ("a.png", encoded(GREY_PALETTE)),
    "16 bit instances with gaps": ("a.tif", tiff(INSTANCES.astype(np.uint16) * 300)),
    "32 bit instances": ("a.tif", tiff(INSTANCES.astype(np.int32) * 70000)),
    "float whole numbers": ("a.tif", tiff(MASK.astype(np.float32))),
}


@pytest.mark.filterwarnings("ignore:.*taken for numbered objects")  # as it must, see test_classes.py
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_kind_of_mask(tmp_path, kind, zipped):
    name, data = MASKS[kind]
    files = {"images/a.png": encoded(GREY), f"masks/{name}": data}
    path = pack(tmp_path / "set.zip", files) if zipped else lay(tmp_path / "set", files)
    np.testing.assert_array_equal(load(path, image_size=(12, 16)).masks[0], MASK)


def test_depths_and_channels_meet_in_the_larger(tmp_path):
    files = {
        "images/a.png": encoded(GREY),
        "images/b.tif": tiff(COLOUR.astype(np.uint16) * 256, photometric="rgb"),
        "masks/a.png": encoded(MASK),
        "masks/b.png": encoded(MASK),
    }
    folder = lay(tmp_path / "set", files)
    both = load(folder, image_size=(12, 16))
    assert both.images.dtype == np.uint16 and both.channels == 3
    np.testing.assert_array_equal(both.images[0], np.stack([GREY.astype(np.uint16) * 257] * 3))
    luminance = load(folder, image_size=(12, 16), channels=1)
    grey = np.rint(COLOUR.astype(float) * 256 @ [0.299, 0.587, 0.114])
    np.testing.assert_array_equal(luminance.images[1, 0], grey)


def dsb_files(top=""):
    left, right = MASK.copy(), MASK.copy()
    left[:, 8:], right[:, :8] = 0, 0
    return {
        f"{top}x1/images/x1.png": encoded(ALPHA),
        f"{top}x1/masks/1.png": encoded(left * np.uint8(255)),
        f"{top}x1/masks/2.png": encoded(right * np.uint8(255)),
        f"{top}x2/images/x2.png": encoded(COLOUR[::-1].copy()),
        f"{top}x2/masks/9.png": encoded(left * np.uint8(255)),
        f"__MACOSX/{top}x2/masks/._9.png": b"junk",
        f"{top}.DS_Store": b"junk",
        f"{top}x2/masks/Thumbs.db": b"junk",
    }


@pytest.mark.parametrize("top", ["", "stage1_train/"])
def test_bowl_layout_is_the_same_from_zip_and_folder(tmp_path, top):
    files = dsb_files(top)
    zipped = load(pack(tmp_path / "set.zip", files), image_size=(12, 16))
    laid = load(lay(tmp_path / "set", files), image_size=(12, 16))
    assert zipped.names == laid.names == ("x1", "x2")
    assert zipped.fingerprint == laid.fingerprint
    np.testing.assert_array_equal(zipped.masks[0], MASK)


def test_progress_counts_images(tmp_path):
    calls = []
    load(pack(tmp_path / "set.zip", dsb_files()), progress=lambda done, n: calls.append((done, n)))
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize("size", [0, -1, 1.5, True, (4,), (4, 0), "128", 10**9])
def test_image_size_is_checked(tmp_path, size):
    with pytest.raises(InvalidArgument, match=r"image_size must be one side or \(height, width\) in pixels, each 1 to"):
        load(tmp_path, image_size=size)


def test_channels_and_kinds_are_checked(tmp_path):
    with pytest.raises(InvalidArgument, match=r"channels must be 1, 3 or None .*, got 2"):
        load(tmp_path, channels=2)
    with pytest.raises(InvalidArgument, match=r"got 'emty-mask'; known are link, .*empty-mask"):
        load(tmp_path, accept=["emty-mask"])


@given(value=st.integers(0, 65535), height=st.integers(1, 9), width=st.integers(1, 9), side=st.integers(1, 9))
def test_a_flat_image_stays_flat(value, height, width, side):
    assert (resize_image(np.full((height, width, 3), value, np.uint16), (side, side)) == value).all()
    assert (resize_mask(np.full((height, width), value > 9), (side, side)) == (value > 9)).all()


@given(values=st.lists(st.integers(0, 254), min_size=1, max_size=30))
def test_numbered_objects_are_instances(values):
    numbered = np.unique(np.array([0, *values]), return_inverse=True)[1].astype(np.uint8)
    inside, problems = foreground(Pixels(numbered[None]), "masks/a.png")
    assert problems == ()
    np.testing.assert_array_equal(inside, numbered[None] > 0)


def entries(cache):
    return sorted(cache.glob("data/*/entry.json"))


def test_second_load_comes_from_the_cache(tmp_path, cache, monkeypatch):
    path = pack(tmp_path / "set.zip", dsb_files())
    first = load(path)
    assert len(entries(cache)) == 1
    monkeypatch.setattr("unetscope.data.loading.read", None)  # decoding again would fail
    assert load(path).fingerprint == first.fingerprint
    moved = path.rename(tmp_path / "other.zip")
    assert load(moved).fingerprint == first.fingerprint and load(moved).source == "other.zip"


@pytest.mark.parametrize("zipped", [False, True])
def test_changed_content_is_read_again(tmp_path, cache, zipped):
    files = dsb_files()
    lay_it = (lambda: pack(tmp_path / "set.zip", files)) if zipped else (lambda: lay(tmp_path / "set", files))
    first = load(lay_it())
    files["x1/images/x1.png"] = encoded(COLOUR // 2)
    second = load(lay_it())
    assert first.fingerprint != second.fingerprint
    assert len(entries(cache)) == 2


def test_a_folder_is_not_read_again_to_know_it(tmp_path, cache, monkeypatch):
    folder = lay(tmp_path / "set", dsb_files())
    load(folder)
    assert not list(cache.glob("listings/*")), "stamps of files just written are not trusted"
    monkeypatch.setattr("unetscope.data.cache.STAMPS_SETTLE_AFTER_NS", -(10**9))
    first = load(folder)
    assert len(list(cache.glob("listings/*"))) == 1
    monkeypatch.setattr("unetscope.data.sources.FolderSource.content_hash", None)
    assert load(folder).fingerprint == first.fingerprint
    (folder / "x1/images/x1.png").write_bytes(encoded(COLOUR // 2))
    with pytest.raises(TypeError):
        load(folder)


def test_sizes_have_their_own_entries(tmp_path, cache):
    path = pack(tmp_path / "set.zip", dsb_files())
    assert load(path, image_size=8).image_size == (8, 8)
    assert load(path, image_size=9).image_size == (9, 9)
    assert load(path, image_size=8, channels=1).channels == 1
    assert len(entries(cache)) == 3


@pytest.mark.parametrize("name", ["images.npy", "masks.npy", "entry.json"])
@pytest.mark.parametrize(
    "harm", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + b"\1" * 9, lambda _: b""]
)
def test_a_damaged_entry_is_made_anew(tmp_path, cache, name, harm):
    path = pack(tmp_path / "set.zip", dsb_files())
    first = load(path)
    damaged = entries(cache)[0].with_name(name)
    whole = damaged.read_bytes()
    damaged.write_bytes(harm(whole))
    assert load(path).fingerprint == first.fingerprint
    assert damaged.read_bytes() == whole


def test_without_a_place_for_the_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load(pack(tmp_path / "set.zip", dsb_files()))) == 2
    assert len(load(lay(tmp_path / "set", dsb_files()))) == 2


def test_accepted_problems_are_remembered(tmp_path, cache):
    files = {"images/a.png": encoded(GREY), "masks/a.png": encoded(MASK * 0)}
    path = pack(tmp_path / "set.zip", files)
    with pytest.raises(DataError, match="all-empty"):
        load(path)
    assert not entries(cache)
    assert load(path, accept=["all-empty"]).foreground_share == 0
    assert entries(cache)
    with pytest.raises(DataError, match=r"1 problem in .*: no pixel of any of its 1 masks is foreground"):
        load(path)


def test_killed_while_caching_leaves_no_half_entry(tmp_path, cache):
    path = pack(tmp_path / "set.zip", dsb_files())
    program = (
        "import os, signal, numpy as np, unetscope.data as data\n"
        "save = np.save\n"
        "def half(file, array, **options):\n"
        "    save(file, array[:1], **options)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "np.save = half\n"
        f"data.load({str(path)!r})\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert not list(cache.glob("data/*/[!.]*"))
    assert len(load(path)) == 2


def test_no_torch_is_imported():
    program = "import sys, unetscope.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def rows(n, names, value=0):
    images = np.arange(n, dtype=np.uint8).repeat(4).reshape(n, 1, 2, 2) + np.uint8(value)
    images[..., 0] += 100
    return SegmentationData(images, np.zeros((n, 2, 2), np.uint8), tuple(names), "made up")


def test_shared_images():
    assert shared_images(rows(3, "abc"), rows(3, "def", value=3)) == []
    assert [p.file for p in shared_images(rows(3, "abc"), rows(3, "def", value=2))] == ["d"]
    blank = rows(1, "x")
    blank.images[:] = 7  # as where no slide lies, or around a volume
    assert shared_images(blank, blank) == []
    with pytest.raises(InvalidArgument, match=r"one image size to be compared, got \(2, 2\) and \(1, 1\)"):
        shared_images(
            rows(1, "a"),
            SegmentationData(np.zeros((1, 1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.uint8), ("b",), "small"),
        )


def test_paper_split():
    names = list(manifest())
    assert paper_split(rows(3, "abc")) is None
    assert paper_split(rows(2, names[:2])) is None
    train, validation = paper_split(rows(3, [names[-1], *names[:2]]))
    assert train.names == tuple(names[:2]) and validation.names == (names[-1],)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not (REAL / "stage1_train.zip").is_file():
        pytest.skip(f"the real archives are not in {REAL}; set UNETSCOPE_DSB2018 to their folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETSCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        times = []
        for _ in range(2):
            # Processor time of all threads: what the machine does beside this test does not count.
            start = time.process_time()
            parts = [load(REAL / f"stage1_{part}.zip") for part in ("train", "test")]
            times.append(time.process_time() - start)
    return parts, times


def seconds_of_decoding(archive: Path, every: int) -> float:
    """Processor time of decoding all images of an archive and nothing else, from that of a part of them."""
    start = time.process_time()
    with zipfile.ZipFile(archive) as opened:
        for name in [name for name in opened.namelist() if name.endswith(".png")][::every]:
            np.asarray(Image.open(io.BytesIO(opened.read(name))))
    return every * (time.process_time() - start)


def test_real_images(real):
    (train, validation), (cold, warm) = real
    assert (len(train), len(validation)) == (605, 65)
    assert train.foreground_share == pytest.approx(0.139, abs=0.0006)
    assert train.channels == 3 and train.images.dtype == np.uint8
    assert shared_images(train, validation) == []
    # As a ratio, since machines differ: 1.4 on one where decoding takes 31 s.
    assert cold < 2.5 * seconds_of_decoding(REAL / "stage1_train.zip", 20)
    assert warm < 1
    everything = SegmentationData(
        np.concatenate([validation.images, train.images]),
        np.concatenate([validation.masks, train.masks]),
        validation.names + train.names,
        "both",
    )
    assert [len(part) for part in paper_split(everything)] == [605, 65]


@pytest.mark.long
def test_nothing_given_is_synthetic_nuclei() -> None:
    data = load(image_size=32)
    assert (len(data), data.image_size, data.channels) == (200, (32, 32), 3)
    assert data.source == "synthetic nuclei, seed 0"
    assert load(image_size=32, channels=1).channels == 1


def test_other_code_or_decoders_never_answer_from_the_cache(tmp_path, monkeypatch) -> None:
    from unetscope.data import cache

    assert cache.version() in {cache.version()}
    before = cache.version()
    monkeypatch.setattr(cache.PIL, "__version__", "0.0")
    cache.version.cache_clear()
    assert cache.version() != before
    cache.version.cache_clear()


def test_data_that_are_no_images_and_masks_are_refused() -> None:
    images, masks = np.zeros((2, 1, 4, 4), np.uint8), np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(InvalidArgument, match="masks must be uint8 with values 0 and 1, got uint8 up to 255"):
        SegmentationData(images, masks + 255, ("a", "b"), "here")
    with pytest.raises(InvalidArgument, match="images must be uint8, uint16 or float32, got float64"):
        SegmentationData(images.astype(np.float64), masks, ("a", "b"), "here")
    with pytest.raises(InvalidArgument, match="names must be unique, one an image"):
        SegmentationData(images, masks, ("a", "a"), "here")
    with pytest.raises(InvalidArgument, match="do not belong together"):
        SegmentationData(images, masks, ("a",), "here")
