"""Seeded mutations of everything that is read from outside, and what has to come of each: values, or one line.

`tests/test_mutations.py` tries some of each kind, and `scripts/make_reliability.py` (`make faults`) many of them.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sqlite3
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from runs import made_run
from unetscope.base import UnetscopeError
from unetscope.data import load, load_nifti, load_nnunet
from unetscope.networks import UNet, load_model, save_model
from unetscope.report.report_data import report_data_of
from unetscope.runs import AnalysedRun
from unetscope.training import Checkpoints

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_SECONDS, MOST_BYTES = 10.0, 2 * 2**30
VALUES = (None, True, -1, 0, 10**9, 10**18, 1e400, float("nan"), "", "x" * 1000, "\ud800", "../..", [], {}, [[]] * 3)


@dataclass
class Outcome:
    """What came of the attempts of one kind: how many were read, how many refused in a line, and what went wrong."""

    read: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> int:
        return self.read + self.refused + len(self.failures)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes with one to eight changes: bits turned over, numbers at their ends, pieces cut out, doubled or exchanged."""
    harmed = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if not harmed:
            break
        place = chance.randrange(len(harmed))
        length = chance.choice((1, 1, 2, 4, 64))
        how = chance.randrange(6)
        if how == 0:
            harmed[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            harmed[place : place + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        elif how == 2:
            harmed[place : place + length] = chance.randbytes(length)
        elif how == 3:
            del harmed[place : place + length]
        elif how == 4:
            harmed[place:place] = harmed[place : place + length]
        elif chance.random() < 0.2:
            del harmed[place:]
    return bytes(harmed)


def mutated_json(text: str, chance: random.Random) -> str:
    """JSON with a value of any place replaced, or its bytes changed; without the digest, as a stranger leaves it."""
    if chance.random() < 0.3:
        return mutated(text.encode(), chance).decode("utf-8", errors="replace")
    values = json.loads(text)
    values.pop("sha256", None)
    node = values
    while True:
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.85:
            node = node[key]
            continue
        if chance.random() < 0.2 and isinstance(node, dict):
            del node[key]
        else:
            node[key] = chance.choice(VALUES)
        return json.dumps(values)


def mutated_tensors(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with other bytes, or without its digest, as a stranger leaves it, and with other weights, another
    header of the length that it says, or another text in it."""
    end = 8 + int.from_bytes(content[:8], "little")
    header, values = json.loads(content[8:end]), bytearray(content[end:])
    texts = header.get("__metadata__", {})
    texts.pop("sha256", None)
    how = chance.randrange(3)
    if how == 0:
        return mutated(content, chance)
    changed = json.dumps(header)
    if how == 1:
        for place in chance.choices(range(len(values)), k=8):
            values[place] = chance.randrange(256)
    elif "network" in texts and chance.random() < 0.5:
        texts["network"] = mutated_json(texts["network"], chance)
        changed = json.dumps(header)
    else:
        changed = mutated_json(changed, chance)
    said = changed.encode(errors="replace")
    return len(said).to_bytes(8, "little") + said + bytes(values)


def mutated_png(content: bytes, chance: random.Random) -> bytes:
    """A PNG with other bytes; or with other chunks or filtered rows, and the checksums of those, as a stranger leaves it."""
    if chance.random() < 0.2:
        return mutated(content, chance)
    chunks, place = [], len(SIGNATURE)
    while place < len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    chosen = chance.randrange(len(chunks))
    kind, data = chunks[chosen]
    how = chance.randrange(4)
    if how == 0 and kind == b"IDAT":
        data = zlib.compress(mutated(zlib.decompress(data), chance))
    elif how <= 1:
        data = mutated(data, chance)
    elif how == 2:
        kind = chance.choice(
            (b"PLTE", b"tRNS", b"iTXt", b"zTXt", b"eXIf", b"iCCP", b"acTL", b"fcTL", b"fdAT", b"IHDR", b"IEND")
        )
    chunks[chosen] = kind, data
    if how == 3:
        other = chance.randrange(len(chunks))
        chunks[chosen : chosen + 1] = [chunks[other], chunks[chosen]][chance.randrange(2) :]
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def mutated_gzip(content: bytes, chance: random.Random) -> bytes:
    """Bytes compressed, so that the checksum is theirs; a third of them mutated once more."""
    compressed = gzip.compress(content, 1)
    return mutated(compressed, chance) if chance.random() < 0.3 else compressed


def tried(
    folder: Path, write: Callable[[random.Random], None], read: Callable[[], object], n: int, seed: int = 0
) -> Outcome:
    """Write n mutations one after another and read each; a refusal is an UnetscopeError of one line."""
    outcome = Outcome()
    for number in range(seed, seed + n):
        write(random.Random(number))
        begun = time.process_time()
        try:
            read()
            outcome.read += 1
        except UnetscopeError as refused:
            if "\n" in str(refused) or "\x1b" in str(refused):
                outcome.failures.append(f"{number}: not one line: {refused!r}")
            else:
                outcome.refused += 1
        except Exception as failure:
            outcome.failures.append(f"{number}: {type(failure).__name__}: {failure}")
        if (seconds := time.process_time() - begun) > MOST_SECONDS:
            outcome.failures.append(f"{number}: {seconds:.0f} seconds")
    return outcome


def images_of(kind: str) -> list[bytes]:
    """Small whole files of a format of images, in the forms that it has."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 3), np.uint8)
    colours, grey, streams = Image.fromarray(pixels), Image.fromarray(pixels[..., 0]), []

    def encoded(write: Callable[[io.BytesIO], object]) -> None:
        streams.append(io.BytesIO())
        write(streams[-1])

    if kind == "PNG":
        for image in (colours, grey, grey.convert("1"), colours.quantize(16), colours.convert("RGBA")):
            encoded(partial(image.save, format="PNG"))
        encoded(partial(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save, format="PNG"))
    elif kind == "JPEG":
        for image in (colours, grey, colours.convert("CMYK")):
            encoded(partial(image.save, format="JPEG", quality=90))
        encoded(partial(colours.save, format="JPEG", progressive=True))
    else:
        deep = pixels.astype(np.uint16)
        forms: tuple[dict[str, Any], ...] = (
            {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"bigtiff": True},
            {"byteorder": ">"}, {"rowsperstrip": 4}, {"planarconfig": "separate"},
        )  # fmt: skip
        for form in forms:
            planes = np.moveaxis(deep, -1, 0) if "planarconfig" in form else deep
            encoded(partial(tifffile.imwrite, data=planes, photometric="rgb", **form))
        encoded(partial(tifffile.imwrite, data=np.float32(pixels[..., 0])))
        for compression in ("tiff_lzw", "packbits", "jpeg"):
            encoded(partial(colours.save, format="TIFF", compression=compression))
    return [stream.getvalue() for stream in streams]


def try_images(kind: str, folder: Path, n: int) -> Outcome:
    """Mutations of one image of a data set of two."""
    wholes, suffix = images_of(kind), {"PNG": "png", "JPEG": "jpg", "TIFF": "tif"}[kind]
    change = mutated_png if kind == "PNG" else mutated
    data = folder / kind
    for part in ("images", "masks"):
        (data / part).mkdir(parents=True)
        Image.fromarray(np.eye(24, 16, dtype=np.uint8) * 255).save(data / part / "whole.png")
    Image.fromarray(np.eye(24, 16, dtype=np.uint8) * 255).save(data / "masks" / "a.png")
    path = data / "images" / f"a.{suffix}"
    return tried(
        folder,
        lambda chance: void(path.write_bytes(change(chance.choice(wholes), chance))),
        lambda: load(data, image_size=8),
        n,
    )


def try_zip(folder: Path, n: int) -> Outcome:
    """Mutations of archives of every compression: of their bytes, and of a member, which has its own checksum then."""
    path, mask = folder / "set.zip", io.BytesIO()
    Image.fromarray(np.eye(24, 16, dtype=np.uint8) * 255).save(mask, "PNG")
    members = {"images/a.png": images_of("PNG")[0], "masks/a.png": mask.getvalue()}
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

    def write(chance: random.Random) -> None:
        harmed = chance.choice((None, *members))
        with zipfile.ZipFile(path, "w", chance.choice(methods)) as archive:
            for name, content in members.items():
                archive.writestr(name, mutated_png(content, chance) if name == harmed else content)
        if harmed is None:
            path.write_bytes(mutated(path.read_bytes(), chance))

    return tried(folder, write, lambda: load(path, image_size=8), n)


def try_nifti(folder: Path, n: int) -> Outcome:
    """Mutations of a volume, most of them in its header, compressed or not."""
    import nibabel

    mask = folder / "mask.nii"
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), mask)
    wholes = []
    for numbers in (np.int16, np.uint8, np.float32, np.float64):
        nibabel.save(
            nibabel.Nifti1Image(np.arange(512).reshape(8, 8, 8).astype(numbers), np.eye(4)), folder / "whole.nii"
        )
        wholes.append((folder / "whole.nii").read_bytes())
    paths = [folder / "a.nii"]

    def write(chance: random.Random) -> None:
        whole = chance.choice(wholes)
        harmed = mutated(whole[:352], chance) + whole[352:]
        paths[0] = folder / chance.choice(("a.nii", "a.nii.gz"))
        paths[0].write_bytes(mutated_gzip(harmed, chance) if paths[0].suffix == ".gz" else harmed)

    return tried(folder, write, lambda: load_nifti(paths, [mask], size=(4, 4, 4)), n)


def try_dataset_json(folder: Path, n: int) -> Outcome:
    """Mutations of the description of a data set in nnU-Net's layout."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "imagesTr" / "a_0000.png")
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "labelsTr" / "a.png")
    text = json.dumps(
        {
            "channel_names": {"0": "grey"},
            "labels": {"background": 0, "cell": 1},
            "file_ending": ".png",
            "numTraining": 1,
        }
    )
    path = folder / "dataset.json"
    return tried(
        folder,
        lambda chance: void(path.write_text(mutated_json(text, chance), encoding="utf-8", errors="surrogatepass")),
        lambda: load_nnunet(folder, size=(8, 8)),
        n,
    )


def shown(path: Path) -> None:
    """All of a run that the verbs read."""
    run = AnalysedRun.open(path)
    report_data_of(run)
    for kind in ("image", "truth", "prediction"):
        run.pictures(kind)
    _ = run.folder.ending, run.folder.failure


def try_config(folder: Path, n: int) -> Outcome:
    """Mutations of the configuration and the facts of a run."""
    path = made_run(folder / "run", (0, 1), labels=("kmeans(k=64)",), pictures_of=8).path
    text = (path / "config.json").read_text(encoding="utf-8")
    return tried(
        folder,
        lambda chance: void((path / "config.json").write_text(mutated_json(text, chance), errors="surrogatepass")),
        lambda: shown(path),
        n,
    )


def try_tables(folder: Path, n: int) -> Outcome:
    """Mutations of the tables of a run: of their bytes, and of values, which a stranger leaves without digests."""
    path = made_run(folder / "run", (0, 1), labels=("kmeans(k=64)",), pictures_of=8).path / "flow.sqlite"
    whole = path.read_bytes()
    columns = {
        table: [row[1] for row in sqlite3.connect(path).execute(f"PRAGMA table_info({table})")]
        for table in ("layers", "skips", "epochs", "estimates", "pictures")
    }
    values = (
        "NULL",
        "-1",
        "0",
        "1e308",
        "9e999",
        "10000000000",
        "'x'",
        "''",
        "x'00ff'",
        "'[[['",
        "zeroblob(100)",
        "'[-1]'",
    )

    def write(chance: random.Random) -> None:
        path.write_bytes(whole if chance.random() < 0.7 else mutated(whole, chance))
        if path.read_bytes() == whole:
            table = chance.choice(list(columns))
            with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as tables, tables:
                tables.execute("DELETE FROM digests")
                change = f"{chance.choice(columns[table])} = {chance.choice(values)}"
                where = "" if chance.random() < 0.3 else f"WHERE rowid % 7 = {chance.randrange(7)}"
                tables.execute(f"UPDATE OR IGNORE {table} SET {change} {where}")

    return tried(folder, write, lambda: shown(path.parent), n)


def try_safetensors(folder: Path, n: int) -> Outcome:
    """Mutations of a network's file and of a checkpoint without digests."""
    model = UNet(2, depth=1)
    path = save_model(model, folder / "model.safetensors")
    optimizer = torch.optim.Adam(model.parameters())
    kept = Checkpoints(folder / "checkpoints")
    kept.save(0, model, optimizer)
    (kept.path(0) / "SHA256SUMS").unlink()
    files = [path, *kept.path(0).iterdir()]
    whole = {file: file.read_bytes() for file in files}

    def write(chance: random.Random) -> None:
        for file, content in whole.items():
            file.write_bytes(content)
        file = chance.choice(files)
        file.write_bytes(
            mutated_tensors(whole[file], chance) if file.suffix == ".safetensors" else mutated(whole[file], chance)
        )

    def read() -> None:
        refusals = []
        for action in (lambda: load_model(path), lambda: kept.restore(0, model, optimizer)):
            try:
                action()
            except UnetscopeError as refused:
                refusals.append(refused)
        for refusal in refusals:
            raise refusal

    return tried(folder, write, read, n)


def void(_: object) -> None:
    """Nothing, from something."""


KINDS: dict[str, Callable[[Path, int], Outcome]] = {
    "zip": try_zip,
    "PNG": lambda folder, n: try_images("PNG", folder, n),
    "TIFF": lambda folder, n: try_images("TIFF", folder, n),
    "JPEG": lambda folder, n: try_images("JPEG", folder, n),
    "NIfTI": try_nifti,
    "dataset.json": try_dataset_json,
    "config.json": try_config,
    "flow.sqlite": try_tables,
    "safetensors": try_safetensors,
}
