"""Write docs/any-network.md: networks of well-known packages through run, verdict, verify and slim, on real data.

    python scripts/make_any_network.py FOLDER --nuclei stage1_train.zip stage1_test.zip --membranes sstem_membranes_train.zip

Each step is a command of unetscope, whose JSON is kept in FOLDER. What is there is not done again, and a training that was
stopped goes on, so a script that was killed is started again with the same words. `--only NAME` does one network; `--write`
writes the page of what is there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from markdown_table import table
from PIL import Image

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "any-network.md"
EPOCHS, SEEDS, FINE_TUNED = 10, 2, 2
SETTINGS = ("--preset=quick", f"--epochs={EPOCHS}", f"--marked=5,{EPOCHS}", "--threads=1", "--device=cpu")


@dataclass(frozen=True)
class Package:
    """A network of a package, as the command is told of it. channels: the argument that takes the channels of images.

    sides: of the images that it takes. lines: of code that its user writes.
    """

    title: str
    code: str
    arguments: tuple[str, ...]
    channels: str
    depths: int
    lines: int = 0
    sides: int = 2


@dataclass(frozen=True)
class Source:
    """Images, and how they are held out. size: that they are cut or resized to."""

    title: str
    words: tuple[str, ...]
    channels: int
    size: tuple[int, ...] = (64, 64)


NETWORKS = {
    "plain-conv-unet": Package(
        "nnU-Net PlainConvUNet", f"{ROOT / 'examples' / 'nnunet_network.py'}:plain_conv_unet", (), "channels", 4, lines=7
    ),
    "smp-unet": Package(
        "SMP Unet, ResNet-18", "segmentation_models_pytorch:Unet", ("encoder_name=resnet18", "encoder_weights=None"),
        "in_channels", 4,
    ),
    "dynunet": Package(
        "MONAI DynUNet", "monai.networks.nets:DynUNet",
        ("spatial_dims=2", "out_channels=1", "kernel_size=[3,3,3,3,3]", "strides=[1,2,2,2,2]", "upsample_kernel_size=[2,2,2,2]",
         "filters=[8,16,32,64,128]"),
        "in_channels", 4,
    ),
    "segresnet": Package(
        "MONAI SegResNet", "monai.networks.nets:SegResNet", ("spatial_dims=2", "init_filters=8", "out_channels=1"),
        "in_channels", 3,
    ),
    "dynunet-3d": Package(
        "MONAI DynUNet, 3-D", "monai.networks.nets:DynUNet",
        ("spatial_dims=3", "out_channels=1", "kernel_size=[[1,3,3],3,3,3]", "strides=[1,[1,2,2],2,2]",
         "upsample_kernel_size=[[1,2,2],2,2]", "filters=[8,16,32,64]"),
        "in_channels", 3, sides=3,
    ),
}  # fmt: skip


def main() -> None:
    """Do what is left of every network on every data set, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nuclei", nargs=2, metavar=("TRAIN", "VAL"), required=True)
    parser.add_argument("--membranes", metavar="TRAIN", required=True)
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    volumes = options.folder / "stacks"
    stacks(Path(options.membranes), volumes)
    sources = {
        "nuclei": Source("nuclei", (f"--data={options.nuclei[0]}", f"--val={options.nuclei[1]}"), 3),
        "membranes": Source(
            "membranes", (f"--data={options.membranes}", r"--groups=s(\d+)_", "--validation-share=0.33"), 1
        ),
        "stacks": Source(
            "membranes in volumes",
            (f"--data={volumes}", "--volumes=patches", "--validation-share=0.33"),
            1,
            (8, 64, 64),
        ),
    }
    for source, of_source in sources.items():
        for network in options.only:
            package = NETWORKS[network]
            if not options.write and package.sides == len(of_source.size):
                steps(options.folder / f"{network}-{source}", package, of_source)
    write(options.folder, sources)


def steps(folder: Path, package: Package, source: Source) -> None:
    """Train and measure a network, judge it, retrain it without two of its parts, and write the smaller network."""
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    arguments = (*package.arguments, f"{package.channels}={source.channels}")
    size = "x".join(map(str, source.size))
    of_network = (f"--network={package.code}", *(f"--network-args={words}" for words in arguments))
    is_begun = (run / "config.json").exists()
    begun = ("--resume",) if is_begun else (*source.words, *SETTINGS, f"--image-size={size}", *of_network)
    told(folder / "run.json", "run", *begun, f"--out={run}")
    told(folder / "verdict.json", "verdict", run)
    told(
        folder / "verify.json", "verify", run, *(f"--variants={name}" for name in variants(package)), f"--seeds={SEEDS}"
    )
    told(folder / "slim.json", "slim", run, f"--design={variants(package)[1]}", f"--fine-tune={FINE_TUNED}", "--onnx")


def stacks(archive: Path, folder: Path) -> None:
    """Write the tiles of one place in all sections as one volume each, of 16 sections; nothing if they are there."""
    if folder.exists():
        return
    beside = folder.with_suffix(".part")
    with zipfile.ZipFile(archive) as tiles:
        for kind in ("images", "masks"):
            (beside / kind).mkdir(parents=True, exist_ok=True)
            names = sorted(name for name in tiles.namelist() if name.startswith(f"{kind}/") and name.endswith(".png"))
            for place in sorted({name.split("_")[1] for name in names}):
                pages = [Image.open(io.BytesIO(tiles.read(name))) for name in names if name.endswith(f"_{place}")]
                tifffile.imwrite(
                    beside / kind / f"{place.removesuffix('.png')}.tif", np.stack(list(map(np.asarray, pages)))
                )
    beside.rename(folder)


def variants(package: Package) -> tuple[str, str]:
    """The network without its top skip, and without its deepest level."""
    return "without-skip1", f"depth{package.depths - 1}"


def told(kept: Path, *words: str | Path) -> None:
    """Run a command and keep its JSON with the time that it took; nothing if it is kept."""
    if kept.exists():
        return
    print("unetscope", *words, flush=True)
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "unetscope", *map(str, words), "--json"],
        stdout=subprocess.PIPE, text=True, env=environment, check=True,
    )  # fmt: skip
    beside = kept.with_suffix(".part")
    beside.write_text(json.dumps(json.loads(done.stdout) | {"seconds": time.monotonic() - began}))
    beside.replace(kept)


def write(folder: Path, sources: dict[str, Source]) -> None:
    """Write the page of the networks that are complete."""
    complete = {
        (network, source): {
            name: json.loads((folder / f"{network}-{source}" / f"{name}.json").read_text()) for name in STEPS
        }
        for source in sources
        for network in NETWORKS
        if all((folder / f"{network}-{source}" / f"{name}.json").exists() for name in STEPS)
    }
    if not complete:
        print(f"nothing is complete in {folder}: the page stays")
        return
    tables = []
    for source, of_source in sources.items():
        of_networks = [(NETWORKS[network], told_of) for (network, of), told_of in complete.items() if of == source]
        if of_networks:
            tables += [f"## On {of_source.title}", ""]
            tables += [*table(RETRAINED, (row for each in of_networks for row in retrained(*each))), ""]
            tables += [*table(SMALLER, (smaller(*each) for each in of_networks)), ""]
            tables += [f"- {reason}" for each in of_networks for reason in reasons(*each)]
            tables += [""]
    text = "\n".join([*INTRODUCTION, decided(complete.values()), "", *tables])
    PAGE.write_text(re.sub("\n\n+", "\n\n", text).rstrip() + "\n", encoding="utf-8")
    print(PAGE)


STEPS = ("run", "verdict", "verify", "slim")
RETRAINED = ("network", "Dice", "variant", "verdict", "lost in Dice (95 %)", "outcome")
SMALLER = ("network", "redundant", "written", "parameters", "MACs", "Dice, smaller")


def retrained(package: Package, told_of: dict[str, Any]) -> list[list[str]]:
    """What is told of the variants of one network on one data set, a row each."""
    outcomes = {outcome["variant"]: outcome for outcome in told_of["verify"]["outcomes"]}
    rows = []
    for place, name in enumerate(variants(package)):
        outcome = outcomes[name]
        of_network = ["", ""] if place else [package.title, f"{told_of['slim']['dice_whole']:.3f}"]
        verdict = outcome["predicted"]["conditional"]
        rows.append([*of_network, name, verdict, lost(outcome["difference"]), outcome["decision"]])
    return rows


def reasons(package: Package, told_of: dict[str, Any]) -> list[str]:
    """Why variants of one network have no interval."""
    without = [each for each in told_of["verify"]["outcomes"] if each["difference"]["low"] is None]
    return [
        f"{package.title}, {each['variant']}: {each['text']}."
        for each in without
        if each["variant"] in variants(package)
    ]


def decided(all_told: Iterable[dict[str, Any]]) -> str:
    """How many variants retraining decided, and how many of these as the verdicts said."""
    outcomes = [
        each for told_of in all_told for each in told_of["verify"]["outcomes"] if each["predicted"]["conditional"]
    ]
    answers = [
        (each["decision"], each["predicted"]["conditional"]) for each in outcomes if each["decision"] != "undecided"
    ]
    right = sum(decision == predicted for decision, predicted in answers)
    wrong = sum(predicted not in ("undecided", decision) for decision, predicted in answers)
    still_open = len(answers) - right - wrong
    return (
        f"Retraining decided {len(answers)} of {len(outcomes)} variants: {right} as the verdict said and {wrong} against it"
        + (f"; of {still_open} the verdict was open." if still_open else ".")
    )


def smaller(package: Package, told_of: dict[str, Any]) -> list[str]:
    """What is told of the smaller network that is written."""
    slim = told_of["slim"]
    whole, small = slim["savings"]["whole"], slim["savings"]["slim"]
    last = max(verdict["epoch"] for verdict in told_of["verdict"]["verdicts"])
    redundant = [
        verdict["part"] for verdict in told_of["verdict"]["verdicts"]
        if (verdict["epoch"], verdict["rule"], verdict["decision"]) == (last, "conditional", "redundant")
    ]  # fmt: skip
    return [
        package.title,
        ", ".join(redundant) or "none",
        slim["design"]["name"],
        f"{small['parameters'] / whole['parameters']:.0%} of {whole['parameters']:,}",
        f"{small['multiply_adds'] / whole['multiply_adds']:.0%}",
        f"{slim['dice_carried']:.3f} → {slim['dice']:.3f}",
    ]


def code_written() -> list[str]:
    """The networks for which the user writes code, with its lines."""
    return [f"{package.lines} lines for {package.title}" for package in NETWORKS.values() if package.lines]


def lost(difference: dict[str, float | None]) -> str:
    """The loss of a variant with its interval; `difference` is that of the variant from the whole network."""
    value, low, high = (difference[name] for name in ("value", "low", "high"))
    if value is None:
        return "not known"
    value, low, high = (None if each is None else 0.0 - each for each in (value, low, high))
    return f"{value:z.3f}" if low is None or high is None else f"{value:z.3f} ({high:z.3f} to {low:z.3f})"


INTRODUCTION = [
    "# Networks of others, on real data",
    "",
    f"`scripts/make_any_network.py` writes this page. Each network is trained from scratch by `unetscope run --network` for {EPOCHS} epochs on",
    "images of 64×64, judged, retrained without its top skip and without its deepest level with two seeds, and written without its deepest",
    f"level, trained on for {FINE_TUNED} epochs, with ONNX beside it. {EPOCHS} epochs are short, and two seeds are few: an outcome is undecided where the",
    "interval holds the margin. nnU-Net's network predicts masks at several depths; the largest prediction alone was trained.",
    "",
    f"- Code of the user's, beside the command: {', '.join(code_written())}; none for the others.",
    "- *Verdict*: of the part that the variant lacks, before anything is retrained.",
    f"- *Lost in Dice*: the mean over pairs of seeds and images held out, of the whole network less the variant, after {EPOCHS} epochs.",
    "- *Parameters, MACs* (multiply-adds): of the smaller network, as a share of the whole one. *Dice, smaller*: with the weights carried",
    f"  over, and after {FINE_TUNED} more epochs.",
    "- *Nuclei*: BBBC038v1, 605 images to train on, 65 held out. *Membranes*: ssTEM sections 0–15 in tiles, in groups by section; in",
    "  volumes: 16 places of 16 sections, in patches of 8×64×64, in groups by place.",
    "",
]


if __name__ == "__main__":
    main()
