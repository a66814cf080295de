"""Write docs/networks.md: the merges found in published networks, and each of their skips and levels left out.

    python scripts/make_networks.py [--workers 2] [--rows ROWS.jsonl [--also DIGEST ...]] [--only NAME ...]

Each network is built with random weights and inspected. Each skip and level is left out and held against the network in which it
is silenced. With `--rows`, finished networks are kept in a file, one JSON object a line, and not run again
while the code that finds and removes parts is the same, or a digest of it is named with `--also`, since what has changed does not
concern the networks that have run. An interrupted run goes on, the cheapest networks first. `tests/test_networks.py` compares the page with the networks.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import re
import statistics
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "networks.md"
sys.path.insert(0, str(ROOT / "tests"))

import network_rows  # noqa: E402
from markdown_table import table  # noqa: E402

import published  # noqa: E402
import torchvision_stub  # noqa: E402
from unetscope.networks.equality import TOLERANCE  # noqa: E402

Row = dict[str, Any]
MODES = ("evaluation", "training")
NONE = "—"


# The words of the page.
OPENING = [
    "# Networks inspected",
    "",
    "`scripts/make_networks.py` writes this page, and the tests compare its counts with the networks. The networks are unmodified and",
    "have random weights.",
]
OF_MERGES = [
    "## Merges and skips",
    "",
    "- *Merges*, *skips*: found, of those in the source of the network. They are counted by reading its forward pass: every place where",
    "  the decoder's stream is joined by a tensor that the encoder kept is a merge, and every kept tensor that arrives there is a skip.",
    "- *Layers*: layers measured by default: all convolutions up to forty, otherwise the ends of stages.",
    "- *Inspection*: time of `us.inspect`.",
    "- *Notes*: why the count differs, and what `us.inspect` warns of, with how often.",
]
MERGES = ("network", "one image", "merges", "skips", "in the source", "joined by", "layers", "inspection, s", "notes")
BELOW_MERGES = [
    "A merge is where a stream that was upsampled meets a stream that was not upsampled with it. Residual blocks,",
    "squeeze-and-excitation and branches that pool the whole image (ASPP, PSP) are therefore not merges; the fusions of a pyramid (FPN,",
    "UPerNet) are. An attention gate is part of the skip that it weights. Streams are followed as [batch, channels, *sides]: merges of",
    "tokens are found if their streams have that form before, which those of Swin-UNet do not. A script is one call.",
]
OF_PARTS = [
    "## Skips and levels left out",
    "",
    "Each skip and each level is left out by itself, by `us.without`.",
    "",
    "- *Skips*, *levels*: left out, of those found.",
    "- *Evaluation*, *training*: the largest difference, in that mode, between the network without a part and the network with zeros",
    "  instead, on two new images or one new volume, relative to the largest output. In float64 where the network computes alike in it (otherwise rounding of",
    "  float32 shows, which the notes say). Every draw of random numbers begins at the same seed in both networks.",
    "- *Parameters*, *time*: what is left of them, as a share: without a skip and without a level, the least over all skips and",
    "  all levels. Time is the median of forward passes of both networks in turn. A recorded program may be a few per cent slower",
    "  or faster than the network's own code.",
    "- *Refused and notes*: the parts that `us.without` refuses and the call that it names, and notes of the results.",
]
PARTS = (
    "network", "skips", "levels", "evaluation", "training", "parameters, skips", "levels", "time, skips", "levels",
    "refused and notes",
)  # fmt: skip
BELOW_PARTS = [
    "A call that mixes channels that stay with those that go, as a normalisation over both, gets zeros in the place of those that go,",
    "and the notes name it. A part that is refused can still be ablated.",
]


def main() -> None:
    """Look into every network and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows", type=Path, help="a file of finished networks, which are not run again")
    parser.add_argument("--also", nargs="+", default=[], help="take finished networks of these digests of the code too")
    parser.add_argument("--only", nargs="+", help="the beginnings of names: run these alone, and write no page")
    parser.add_argument("--write", action="store_true", help="run nothing: write the page of the finished networks")
    options = parser.parse_args()
    _begin()
    networks = [n for n in published.NETWORKS if not options.only or n.name.startswith(tuple(options.only))]
    if missing := sorted({network.missing for network in networks} - {""}):
        raise SystemExit(
            f"not installed: {', '.join(missing)}: pip install --no-deps -r no-deps.txt -r scripts/networks.txt"
        )
    rows = finished(options.rows, {network_rows.code_digest(), *options.also})
    left = [network.name for network in sorted(networks, key=_expected_cost) if network.name not in rows]
    if options.write:
        left = []
    with multiprocessing.get_context("fork").Pool(options.workers, maxtasksperchild=8) as pool:
        for count, row in enumerate(pool.imap_unordered(_row_named, left, chunksize=1), start=1):
            outcome = row["crash"] if "crash" in row else f"{row['ran']:.0f} s"
            print(f"{count} of {len(left)}: {row['name']}, {outcome}", flush=True)
            if "crash" in row:
                continue
            rows[row["name"]] = row
            if options.rows:
                with options.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    crashed = [network.name for network in networks if network.name not in rows]
    if not options.only:
        every = [rows.get(network.name, {"name": network.name, "not_run": True}) for network in networks]
        PAGE.write_text(page_of(every), encoding="utf-8")
    if crashed:
        raise SystemExit(f"not run: {', '.join(crashed)}")


def _expected_cost(network: published.Published) -> int:
    return math.prod(network.shape[1:]) * (1 + network.source_skips)


def finished(path: Path | None, digests: Collection[str]) -> dict[str, Row]:
    """The rows of a file that are of some digests of the code, by name of the network; the last of each."""
    if path is None or not path.exists():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["name"]: row for row in rows if row["digest"] in digests}


def _row_named(name: str) -> Row:
    network = next(network for network in published.NETWORKS if network.name == name)
    started = time.perf_counter()
    try:
        row = network_rows.row_of(network)
    except Exception:
        return {"name": name, "crash": traceback.format_exc()}
    return {"name": name, "digest": network_rows.code_digest(), **row, "ran": time.perf_counter() - started}


def _begin() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torchvision_stub.declare()


# The page.


def page_of(rows: Sequence[Row]) -> str:
    """The page from one row a network, in the order of the networks."""
    both = list(zip(published.NETWORKS, rows, strict=True))
    found = sum(min(row.get("merges", 0), network.merges) for network, row in both)
    in_sources = sum(network.merges for network, row in both if "not_run" not in row)
    whole = sum(row.get("merges") == network.merges for network, row in both)
    left = [row["name"] for row in rows if "not_run" in row]
    counted = f"`us.inspect` finds {found} of {in_sources} merges of {len(rows) - len(left)} networks, and all merges of {whole} of them."
    merges = table(MERGES, (cells_of_merges(network, row) for network, row in both))
    parts = table(PARTS, ([row["name"], *cells_of_parts(row["parts"])] for row in rows if row.get("parts")))
    summary = [counted, *sentences_of_parts(rows), *[f"Not run for this page: {'; '.join(left)}."][: len(left)]]
    pieces = (OPENING, summary, [*OF_MERGES, "", *merges], BELOW_MERGES, [*OF_PARTS, "", *parts], BELOW_PARTS)
    return "\n\n".join("\n".join(piece) for piece in pieces) + "\n"


def sentences_of_parts(rows: Sequence[Row]) -> list[str]:
    """How many parts of all networks are left out, how exactly, and what is left of the networks."""
    parts = [part for row in rows for part in row.get("parts", [])]
    removed = [part for part in parts if "refusal" not in part]
    exact = [part for part in removed if max(part[mode] for mode in MODES) <= TOLERANCE]
    in_evaluation = sum(part["evaluation"] <= TOLERANCE for part in removed)
    single = sum(part.get("float32", False) for part in removed)
    lines = [
        f"`us.without` leaves out {len(removed)} of their {len(parts)} skips and levels, and refuses {len(parts) - len(removed)} with the call that is in the way.",
        f"On new images {len(exact)} of these {len(removed)} equal the network with zeros instead to 1e-6 of the largest output, in evaluation and",
        f"in training mode{f', and {in_evaluation - len(exact)} more in evaluation mode alone' * (in_evaluation > len(exact))}. {single} of them were compared in float32, the others in float64.",
    ]
    for kind in ("skip", "level"):
        of_kind = [part for part in removed if part["part"].startswith(kind)]
        parameters, seconds = (statistics.median(part[key] for part in of_kind) for key in ("parameters", "time"))
        lines.append(
            f"Without one {kind}, the median network keeps {parameters:.1%} of its parameters and {seconds:.0%} of its time."
        )
    return lines


def cells_of_merges(network: published.Published, row: Row) -> list[str]:
    """The cells of a network in the table of merges."""
    shape = "×".join(map(str, network.shape))
    if "not_run" in row:
        return [network.name, shape, NONE, NONE, network.why, NONE, NONE, NONE, "not run"]
    if "refusal" in row:
        return [network.name, shape, NONE, NONE, network.why, NONE, NONE, NONE, f"refused: {row['refusal']}"]
    differs = (row["merges"], row["skips"]) != (network.merges, network.source_skips)
    notes = [network.reason or "the count differs from that of the source" * differs]
    notes += [f"warns of: {gap} ({count})" for gap, count in Counter(row["gaps"]).items()]
    return [
        network.name,
        shape,
        f"{row['merges']} of {network.merges}",
        f"{row['skips']} of {network.source_skips}",
        network.why,
        ", ".join(row["kinds"]) or NONE,
        row["layers"],
        f"{row['seconds']:.2f}",
        "; ".join(filter(None, notes)) or NONE,
    ]


def cells_of_parts(parts: Sequence[Row]) -> list[str]:
    """The cells of a network in the table of parts left out."""
    removed = {
        kind: [p for p in parts if p["part"].startswith(kind) and "refusal" not in p] for kind in ("skip", "level")
    }
    counts = [f"{len(removed[kind])} of {sum(p['part'].startswith(kind) for p in parts)}" for kind in removed]
    every = [part for of_kind in removed.values() for part in of_kind]
    differences = [max((part[mode] for part in every), default=None) for mode in MODES]
    largest = [NONE if value is None else f"{value:.0e}" if value else "0" for value in differences]
    shares = [
        f"{min(part[key] for part in of_kind):.{digits}%}" if of_kind else NONE
        for key, digits in (("parameters", 1), ("time", 0))
        for of_kind in removed.values()
    ]
    return [*counts, *largest, *shares, "; ".join(remarks_of(parts)) or NONE]


def remarks_of(parts: Sequence[Row]) -> list[str]:
    """Refusals and notes of parts, each once with the parts that it is of."""
    remarks: dict[str, list[str]] = {}
    for part in parts:
        if "refusal" in part:
            remarks.setdefault("refused: " + shortened(part["refusal"]), []).append(part["part"])
        for note in part.get("notes", []):
            remarks.setdefault(shortened(note), []).append(part["part"])
        if part.get("no_dropout"):
            remarks.setdefault("compared without dropout in training mode", []).append(part["part"])
        if part.get("float32"):
            remarks.setdefault("compared in float32, since its code depends on the type", []).append(part["part"])
    return [f"{text} ({'all' if len(names) == len(parts) else ', '.join(names)})" for text, names in remarks.items()]


def shortened(text: str) -> str:
    """A refusal or a note without the advice behind it and without numbers of one part."""
    text = re.sub(r" \([\d.e+-]+ of [\d.e+-]+\)", "", text).replace("; ablate it instead", "")
    constants = (
        r"where it is zero, what is left out reaches (\S+) as constants, through a normalisation: they are kept as"
    )
    text = re.sub(constants, r"constants that a normalisation makes of zeros are kept for \1 as", text)
    return re.split(
        r", so no skip|: no skip can be removed|: ablate it instead|, and equals the one", text, maxsplit=1
    )[0].strip()


if __name__ == "__main__":
    main()
