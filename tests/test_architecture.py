"""The one direction of imports, what never loads torch, and how large files, classes and constructors may grow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "unetscope"
MODULES = sorted(SOURCE.rglob("*.py"))
WITHOUT_TORCH = ("base", "table", "data", "analysis", "plots", "report", "cli")
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_CLASS, MOST_PARAMETERS = 400, 250, 10
MOST_MODULES_AT_THE_ROOT = 5


def test_packages_import_in_one_direction() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_tables_and_figures_never_load_torch(package: str) -> None:
    modules = [path for path in (SOURCE / package).rglob("*.py") if path.stem != "__main__"]
    names = [".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in modules]
    loaded = "; ".join(f"import {name.removesuffix('.__init__')}" for name in names)
    code = f"import sys; {loaded}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import unetscope

    for name in unetscope.__all__:
        assert getattr(unetscope, name) is not None
    with pytest.raises(AttributeError, match="No unetscope attribute Unet"):
        unetscope.Unet  # noqa: B018


def test_the_root_holds_few_modules() -> None:
    assert len(list(SOURCE.glob("*.py*"))) <= MOST_MODULES_AT_THE_ROOT
