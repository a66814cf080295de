"""Write docs/tutorial.md: run its commands in an empty folder and record their output.

    python scripts/make_tutorial.py --data stage1_train.zip --val stage1_test.zip

The archives hold the images of `unetscope data fetch`. The script takes about ten minutes on two cores. `--small` uses a few
synthetic images and epochs instead, so that the tests can run every command.
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
ENDING = 4  # lines of an output that are kept when it is cut


@dataclass(frozen=True)
class Step:
    """A paragraph with a command, Python code or a figure; `small` holds the flags of the short version."""

    text: str
    console: str = ""
    python: str = ""
    small: str = ""
    figure: str = ""
    lines: int = 40


STEPS = (
    Step(
        "The tutorial uses the 670 public nuclei images of BBBC038v1, stage 1 of the 2018 Data Science Bowl. `unetscope data fetch` "
        "downloads them, verifies each one, and prints the path of the archive. `unetscope run` recognises the paper's split by the names of the "
        "images. Here the paper's 605 training and 65 validation images are two archives; with the downloaded archive, omit `--val`. "
        "Check the data before training:",
        console=f"unetscope check-data {TRAIN} --val {TEST} --image-size 64",
        small="--image-size 16",
    ),
    Step(
        "Estimate the cost: `--dry-run` measures a short sample and predicts time, memory and disk space:",
        console=f"unetscope run --data {TRAIN} --val {TEST} --preset quick --out runs/nuclei --dry-run",
        small="--image-size 16 --width 2 --epochs 2 --clusters 4 --threads 1",
    ),
    Step(
        "Train, and measure at the marked epochs. Add `--open` to follow the report in a browser. You can interrupt the run at any "
        "time; `--resume` continues it.",
        console=f"unetscope run --data {TRAIN} --val {TEST} --preset quick --out runs/nuclei --quiet",
        small="--image-size 16 --width 2 --epochs 2 --clusters 4 --threads 1",
    ),
    Step(
        "The report is one file, `runs/nuclei/report.html`; open it in a browser. The slider selects the epoch. Click a layer to "
        "highlight it in every figure. This U-Plot shows the usable information about the mask in each layer during training "
        "([how to read it](reading-a-u-plot.md)):",
        figure="u_plot_usable_linear",
    ),
    Step(
        "Predict which skips and levels this training needs:",
        console="unetscope verdict runs/nuclei --no-cost",
        lines=80,  # it ends with what is proposed, and with what rules plan, a line for each part before
    ),
    Step(
        "A verdict is a prediction. Test it with a network of depth 2 instead of 4: `verify` trains this network and the full network "
        "with two seeds each, two trainings at a time, and compares the results with the verdicts.",
        console="unetscope verify runs/nuclei --variants depth2 --seeds 2 --quiet",
        small="--seeds 1",
    ),
    Step(
        "The Dice curves, with the range over seeds:",
        figure="verification_dice",
    ),
    Step(
        "Write the smaller network with its retrained weights:",
        console="unetscope slim runs/nuclei --design depth2 --retrained --quiet",
    ),
    Step(
        "Load it as a PyTorch module:",
        python=(
            "import torch, unetscope as us\n"
            'model = us.load_model("runs/nuclei/slim/depth2-retrained/model.safetensors")\n'
            "with torch.no_grad():\n"
            "    mask = model(torch.rand(1, 3, 64, 64)) > 0.5\n"
            "print(mask.shape, sum(p.numel() for p in model.parameters()), 'parameters')"
        ),
    ),
    Step(
        "Export the table of all estimates:",
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
        write(
            options.to, [output_of(step, place, small=options.small, figures=options.to / "figures") for step in STEPS]
        )


def small_archive(path: Path, images: int, *, seed: int) -> None:
    """Synthetic nuclei as an archive of images and masks."""
    nuclei = us.synthetic_nuclei(images, seed=seed, image_size=16)
    with zipfile.ZipFile(path, "w") as archive:
        for number, (image, mask) in enumerate(zip(nuclei.images, nuclei.masks, strict=True)):
            pictures = {"images": np.moveaxis(np.asarray(image), 0, -1), "masks": np.squeeze(np.asarray(mask)) * 255}
            for kind, pixels in pictures.items():
                with archive.open(f"{kind}/{number:03}.png", "w") as file:
                    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")


def output_of(step: Step, place: Path, *, small: bool, figures: Path) -> str:
    """The output of a step; empty for a figure, which is copied."""
    if step.figure:
        figures.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(
            place / "runs" / "nuclei" / "figures" / f"{step.figure}.png", figures / f"tutorial_{step.figure}.png"
        )
        return ""
    code, console = step.python, step.console
    if small:  # so short a training does not start, and `slim` refuses its weights
        code, console = (
            code.replace("depth2-retrained", "depth2"),
            f"{console} {step.small}".replace(" --retrained", ""),
        )
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", *console.split()]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    printed = done.stdout.replace(f"{place.resolve()}/", "").replace(f"{place}/", "")
    kept = [line.rstrip() for line in printed.rstrip().splitlines()]
    if len(kept) > step.lines:  # the end says what follows
        kept[step.lines - ENDING : -ENDING] = ["…"]
    return "\n".join(kept)


def page(outputs: list[str]) -> Iterator[str]:
    """The page, line by line."""
    yield "# Tutorial: ten minutes on nuclei images"
    yield ""
    yield "This page takes ten minutes to read; the machine needs the time that is predicted below. `scripts/make_tutorial.py` runs every"
    yield "command and records its output."
    yield 'Install the command in a checkout: `pip install -c constraints.txt -e ".[table]"`.'
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
    yield "Next: [your own network](your-network.md), or [choosing an estimator](choosing-an-estimator.md)."
    yield ""


def without_outputs(text: str) -> str:
    """The page without the outputs, which every run of the script writes equally."""
    return re.sub(r"```text\n.*?```\n", "```text\n```\n", text, flags=re.DOTALL)


def write(to: Path, outputs: list[str]) -> None:
    """Write the page into a folder."""
    (to / "tutorial.md").write_text("\n".join(page(outputs)), encoding="utf-8")


if __name__ == "__main__":
    main()
