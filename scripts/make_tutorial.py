"""Write docs/tutorial.md: run its commands in an empty folder, and put down what they print.

    python scripts/make_tutorial.py --data stage1_train.zip --val stage1_test.zip

The archives are those of `unetscope data fetch`; about ten minutes on two cores. `--small` takes a handful of synthetic images
and few epochs instead, to see that every command works; its page is for the tests.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import unetscope as us

DOCS = Path(__file__).parents[1] / "docs"
TRAIN, TEST = "stage1_train.zip", "stage1_test.zip"
WIDTH = 100


@dataclass(frozen=True)
class Step:
    """Some words, what is typed, and the flags that make it small; or a figure that is there by then."""

    text: str
    console: str = ""
    python: str = ""
    small: str = ""
    figure: str = ""
    lines: int = 40


STEPS = (
    Step(
        "You need the 670 public nuclei images of BBBC038v1, stage 1 of the 2018 Data Science Bowl. `unetscope data fetch` brings "
        "them, checks every one, and prints where the archive lies; the paper's split is known by the images' names. Here the "
        "paper's 605 training and 65 validation images lie as two archives; with the fetched one, leave `--val` out. Before anything "
        "is trained, ask whether the data are as they should be:",
        console=f"unetscope check-data {TRAIN} --val {TEST} --image-size 64",
        small="--image-size 16",
    ),
    Step(
        "What will it take? `--dry-run` measures a short sample and foretells time, memory and disk:",
        console=f"unetscope run --data {TRAIN} --val {TEST} --preset quick --out runs/nuclei --dry-run",
        small="--image-size 16 --width 2 --epochs 2 --clusters 4 --threads 1",
    ),
    Step(
        "Train, and measure at the marked epochs. Add `--open` to watch the page grow in a browser; kill it whenever you like, "
        "`--resume` goes on.",
        console=f"unetscope run --data {TRAIN} --val {TEST} --preset quick --out runs/nuclei --quiet",
        small="--image-size 16 --width 2 --epochs 2 --clusters 4 --threads 1",
    ),
    Step(
        "The page is `runs/nuclei/report.html`: one file, to be opened by a double click. Move the slider through the epochs, click a "
        "layer, and it is followed in every picture. Here is what each layer tells of the mask, pixel by pixel, along the training "
        "([how to read it](reading-a-u-plot.md)):",
        figure="u_plot_usable_linear",
    ),
    Step(
        "Which skips and levels did such a training need?",
        console="unetscope verdict runs/nuclei --no-cost",
    ),
    Step(
        "A verdict is a prediction. Whatever it says of the lower half of this U, try a network of depth 2 instead of 4: `verify` trains "
        "it and the whole network with two seeds each, two at a time, and holds the verdicts against what comes out.",
        console="unetscope verify runs/nuclei --variants depth2 --seeds 2 --quiet",
        small="--seeds 1",
    ),
    Step(
        "Its curves, with the range over seeds:",
        figure="verification_dice",
    ),
    Step(
        "The smaller network with the weights that its retraining found:",
        console="unetscope slim runs/nuclei --design depth2 --retrained --quiet",
    ),
    Step(
        "It loads in plain PyTorch:",
        python=(
            "import torch, unetscope as us\n"
            'model = us.load_model("runs/nuclei/slim/depth2-retrained/model.safetensors")\n'
            "with torch.no_grad():\n"
            "    mask = model(torch.rand(1, 3, 64, 64)) > 0.5\n"
            "print(mask.shape, sum(p.numel() for p in model.parameters()), 'parameters')"
        ),
    ),
    Step(
        "The table of all estimates, for your own figures:",
        console="unetscope export runs/nuclei --to flow.csv",
    ),
)


def main() -> None:
    """Run the steps and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help=TRAIN)
    parser.add_argument("--val", type=Path, help=TEST)
    parser.add_argument("--small", action="store_true", help="on synthetic images")
    parser.add_argument("--to", type=Path, default=DOCS, help="folder of the page and its figures")
    options = parser.parse_args()
    if not options.small and not (options.data and options.val):
        parser.error("--data and --val, or --small")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.small:
            small_archive(place / TRAIN, 24, seed=0)
            small_archive(place / TEST, 8, seed=1)
        else:
            shutil.copyfile(options.data, place / TRAIN)
            shutil.copyfile(options.val, place / TEST)
        write(options.to, [said(step, place, small=options.small, figures=options.to / "figures") for step in STEPS])


def small_archive(path: Path, images: int, *, seed: int) -> None:
    """Synthetic nuclei as an archive of images and masks."""
    nuclei = us.synthetic_nuclei(images, seed=seed, image_size=16)
    with zipfile.ZipFile(path, "w") as archive:
        for number, (image, mask) in enumerate(zip(nuclei.images, nuclei.masks, strict=True)):
            pictures = {"images": np.moveaxis(np.asarray(image), 0, -1), "masks": np.squeeze(np.asarray(mask)) * 255}
            for kind, pixels in pictures.items():
                with archive.open(f"{kind}/{number:03}.png", "w") as file:
                    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")


def said(step: Step, place: Path, *, small: bool, figures: Path) -> str:
    """What a step prints, or the name of its figure."""
    if step.figure:
        figures.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(
            place / "runs" / "nuclei" / "figures" / f"{step.figure}.png", figures / f"tutorial_{step.figure}.png"
        )
        return ""
    code, console = step.python, step.console
    if small:  # so short a training does not start, and what did not start is not handed over
        code, console = (
            code.replace("depth2-retrained", "depth2"),
            f"{console} {step.small}".replace(" --retrained", ""),
        )
    words = [sys.executable, "-c", code] if code else [sys.executable, "-m", *console.split()]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    printed = done.stdout.replace(f"{place.resolve()}/", "").replace(f"{place}/", "")
    kept = [line.rstrip() for line in printed.rstrip().splitlines()]
    more = ["…"] if len(kept) > step.lines else []
    return "\n".join(kept[: step.lines] + more)


def page(outputs: list[str]) -> Iterator[str]:
    """The page, line by line."""
    yield "# Ten minutes on the nuclei"
    yield ""
    yield "Ten minutes of your time; the machine's is foretold below. Every command here was run, and what stands under it is what it"
    yield "printed: `scripts/make_tutorial.py` writes this page."
    yield 'The command comes with `pip install -c constraints.txt -e ".[table]"` in a checkout.'
    for step, output in zip(STEPS, outputs, strict=True):
        yield ""
        yield step.text
        yield ""
        if step.figure:
            yield f"![{step.figure.replace('_', ' ')}](figures/tutorial_{step.figure}.png)"
            continue
        yield "```python" if step.python else "```sh"
        yield step.python or step.console
        yield "```"
        if output:
            yield ""
            yield "```text"
            yield output
            yield "```"
    yield ""
    yield "Next: [bring your network](your-network.md), or [choose an estimator](choosing-an-estimator.md)."
    yield ""


def without_outputs(text: str) -> str:
    """The page with the outputs taken out: what a second run must write alike."""
    return re.sub(r"```text\n.*?```\n", "```text\n```\n", text, flags=re.DOTALL)


def write(to: Path, outputs: list[str]) -> None:
    """The page into a folder."""
    (to / "tutorial.md").write_text("\n".join(page(outputs)), encoding="utf-8")


if __name__ == "__main__":
    main()
