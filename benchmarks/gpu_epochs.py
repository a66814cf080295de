"""How long an epoch of training takes on a GPU: steps one by one and as CUDA graphs, alone and several trainings at once.

    python benchmarks/gpu_epochs.py --data stage1_train.zip --val stage1_test.zip --width 8 --image-size 64 --at-once 4

To compare with NVIDIA's MPS, start `nvidia-cuda-mps-control -d` before.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

from unetscope.base.progress import NoProgress
from unetscope.runs.experiment import prepare
from unetscope.runs.resuming import resumed_or_new
from unetscope.table.records import EpochRecord
from unetscope.training.config import preset_config
from unetscope.training.trainer import Trainer

FIRST = 5  # epochs that are not counted, as graphs are captured in them


def main() -> None:
    """Time the epochs, and print a line for each way of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--at-once", type=int, default=1, help="trainings, each in a process of its own")
    parser.add_argument("--device", default="cuda")
    words = parser.parse_args()
    if words.at_once > 1:
        alone = [f"--{name.replace('_', '-')}={value}" for name, value in vars(words).items() if name != "at_once"]
        processes = [subprocess.Popen([sys.executable, __file__, *alone]) for _ in range(words.at_once)]
        sys.exit(max(process.wait() for process in processes))
    for graphs in (True, False) if words.device == "cuda" else (False,):
        time_epochs(words, graphs=graphs)


def time_epochs(words: argparse.Namespace, *, graphs: bool) -> None:
    """Train for some epochs, then measure once, and print the seconds of both."""
    values = {
        "data.path": words.data,
        "data.validation": words.val,
        "data.image_size": words.image_size,
        "network.width": words.width,
        "training.epochs": words.epochs,
        "training.device": words.device,
        "training.cuda_graphs": graphs,
        "measuring.usable": False,
        "measuring.merge_probes": False,
        "threads": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        config, _ = resumed_or_new(preset_config("paper", values), f"{folder}/run", resume=False, progress=NoProgress())
        experiment = prepare(config)
        trainer = Trainer(experiment.model, experiment.train, experiment.validation, experiment.config.training, folder)
        records: list[EpochRecord] = []
        trainer.run(on_epoch=records.append)
        began = time.perf_counter()
        estimates = experiment.scope.measure(words.epochs)
        measuring = time.perf_counter() - began
    epoch = statistics.median(record.seconds for record in records[FIRST:])
    how = "CUDA graphs" if graphs else "steps one by one"
    print(
        f"{how}: {1000 * epoch:.1f} ms an epoch; {measuring:.2f} s a measurement of {len(estimates)} estimates",
        flush=True,
    )


if __name__ == "__main__":
    main()
