"""Shared by all tests: shapes in signatures are checked at run time, the cache is never the user's own.

Tests run in several processes (pytest-xdist), so torch has one thread in each, and a run that many tests read is trained once
for all of them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the processes that tests start
os.environ.setdefault("MKL_NUM_THREADS", "1")

import base64
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings
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
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a background job of a shell, and of all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile(
    "any machine", deadline=None
)  # the first example imports and compiles, on a machine that is busy
settings.load_profile("any machine")

REPOSITORY = Path(__file__).parents[1]
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


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


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder the first time that any process asks for its name; copy it before changing it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all processes

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                shutil.rmtree(shared / f"{name}.part", ignore_errors=True)
                make(shared / f"{name}.part")
                (shared / f"{name}.part").rename(shared / name)
        return shared / name

    return folder


@pytest.fixture
def sketched_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not rendered, which takes most of the time of a small run: their files hold one pixel."""

    def save(_figure: object, folder: str | Path, name: str) -> tuple[Path, Path]:
        png, svg = Path(folder, f"{name}.png"), Path(folder, f"{name}.svg")
        png.write_bytes(PIXEL)
        svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
        return png, svg

    monkeypatch.setattr("unetscope.plots.save", save)
