"""Shared by all tests: shapes in signatures are checked at run time, the cache is never the user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(
    [
        "unetscope.activations",
        "unetscope.estimators",
        "unetscope.measure",
        "unetscope.networks.unet",
        "unetscope.training.trainer",
    ],
    "beartype.beartype",
)

from torchvision_stub import declare  # noqa: E402 (after the hook)

declare()

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["UNETSCOPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_archives() -> Path:
    """The folder of the real images, `stage1_train.zip` and `stage1_test.zip`."""
    folder = Path(os.environ.get("UNETSCOPE_DSB2018", REPOSITORY.parent / "shared/data/dsb2018"))
    if not (folder / "stage1_train.zip").is_file():
        pytest.skip("the real images are not here: set UNETSCOPE_DSB2018 to the folder of stage1_train.zip")
    return folder
