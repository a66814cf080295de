"""Train Models 1 to 3 of the study for a few epochs with other initial weights, learning rates and warm-ups, and see which start.

    python scripts/start_trainings.py runs/study --seeds 12 --epochs 15

Each training is a run folder RUN/starts/RECIPE/VARIANT/seed-K. Started again, the script continues. `make_study.py` reads the folders.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from unetscope.runs.engines import cores, engine_named
from unetscope.runs.folder import RunFolder
from unetscope.table.parts import named_variants
from unetscope.training.config import overridden_config

RECIPES = {
    "unchanged": {},
    "He initialisation": {"network.initialisation": "he"},
    "a third of the learning rate": {"training.learning_rate": 3e-4},
    "three times the learning rate": {"training.learning_rate": 3e-3},
    "warm-up of 3 epochs": {"training.warm_up_epochs": 3},
}
VARIANTS = ("model1", "model2", "model3")


def main() -> None:
    """Train every recipe, variant and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--workers", type=int, default=cores())
    words = parser.parse_args()
    run = RunFolder.open(words.run)
    folders = []
    for recipe, changed in RECIPES.items():
        for variant in named_variants(VARIANTS, depth=run.configuration["network"]["depth"]):
            for seed in range(100, 100 + words.seeds):  # not the seeds of the study
                path = run.path / "starts" / recipe.replace(" ", "-") / variant.name / f"seed-{seed}"
                config = overridden_config(
                    run.configuration,
                    {
                        **changed,
                        "network.without": variant.network["without"],
                        "training.epochs": words.epochs,
                        "measuring.marked": [],
                        "seed": seed,
                        "threads": 1,
                    },
                )
                if not RunFolder.exists(path):
                    about = {"configuration": config.model_dump(mode="json"), "facts": run.facts}
                    RunFolder.create(path, {**about, "facts": {**run.facts, "recipe": recipe}})
                if RunFolder.open(path).ending is None:
                    folders.append(path)
    print(engine_named("local", workers=words.workers).run(folders, lambda: None) or "all trained")


if __name__ == "__main__":
    main()
