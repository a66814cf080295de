"""Write the manifest of BBBC038v1 stage 1 from the archives of the paper's two parts.

    python scripts/make_manifest.py stage1_train.zip stage1_test.zip

The manifest lists, for each image id, the SHA-256 of the image file and one SHA-256 over the sorted SHA-256 of its mask
files, under the part ("train" or "validation") of the paper's split. `unetscope.data.bbbc038` verifies downloads with it, and
`unetscope.data.paper_split` reads the split from it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

from unetscope.data.bbbc038 import Part, sums_of
from unetscope.data.pairs import find_pairs
from unetscope.data.problems import guard
from unetscope.data.sources import open_source

ABOUT = {
    "name": "2018 Data Science Bowl, stage 1 (BBBC038v1)",
    "source": "https://bbbc.broadinstitute.org/BBBC038",
    "licence": "CC0-1.0",
    "citation": "Caicedo et al., Nature Methods 16, 1247-1253 (2019)",
    "sums": "id: [SHA-256 of the image file, SHA-256 over the sorted SHA-256 of the mask files, one a line]",
}
OUT = Path(__file__).parents[1] / "src/unetscope/data/bbbc038_manifest.json"
PACK_OVER_BYTES = 300_000


def part_sums(archive: Path, part: Part) -> dict[str, list[str]]:
    """Id -> [image sum, masks sum] of all images in one archive."""
    with open_source(archive) as source:
        pairs, problems = find_pairs(source)
        guard(problems, str(archive))
        sums = {pair.name: sums_of(source, pair, part) for pair in pairs}
    return {name: [of_image.image, of_image.masks] for name, of_image in sums.items()}


def main() -> None:
    """Read the two archives and write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="archive of the 605 training images")
    parser.add_argument("validation", type=Path, help="archive of the 65 validation images")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write (.gz is added when it is large)")
    arguments = parser.parse_args()
    parts = {
        "train": part_sums(arguments.train, "train"),
        "validation": part_sums(arguments.validation, "validation"),
    }
    text = json.dumps({**ABOUT, "parts": parts}, indent=0).encode()
    if len(text) > PACK_OVER_BYTES:
        arguments.out.with_suffix(".json.gz").write_bytes(gzip.compress(text, mtime=0))
    else:
        arguments.out.write_bytes(text)
    print(f"{len(parts['train'])} + {len(parts['validation'])} images, {len(text)} bytes")


if __name__ == "__main__":
    main()
