"""The one direction of imports, what never loads torch, and how large files, classes and constructors may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unetscope

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "unetscope"
MODULES = sorted(SOURCE.rglob("*.py"))
WITHOUT_TORCH = ("base", "table", "data", "analysis", "plots", "report", "cli")
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_CLASS, MOST_PARAMETERS = 400, 250, 10
MOST_MODULES_AT_THE_ROOT = 5


def test_doors_are_ascii() -> None:
    """They are read in the encoding of the user's machine, which is not UTF-8 on every one."""
    doors = sorted(Path(unetscope.__file__).parent.rglob("*.pyi"))
    assert doors
    assert {door: door.read_bytes() for door in doors if not door.read_bytes().isascii()} == {}


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
    for name in unetscope.__all__:
        assert getattr(unetscope, name) is not None
    with pytest.raises(AttributeError, match="No unetscope attribute Unet"):
        unetscope.Unet  # noqa: B018


def door_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_other_packages_are_entered_by_their_door(path: Path) -> None:
    inside = [
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unetscope.")
    ]
    past_the_door = [name for name in inside if len(name.split(".")) > 2 and name.split(".")[1] != door_of(path)]
    assert not past_the_door, f"{path.name} imports {past_the_door}: import from the package, whose stub lists the name"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_grows_too_large(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_CLASS, node.name
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            assert len(node.args.args) - 1 + len(node.args.kwonlyargs) <= MOST_PARAMETERS, path.name


@pytest.mark.parametrize("old", sorted(unetscope._MOVED))
def test_old_public_names_go_on_with_a_warning(old: str) -> None:
    with pytest.warns(DeprecationWarning, match=rf"unetscope\.{old} is unetscope\.\w+\.\w+ now; the old name ends"):
        assert getattr(unetscope, old) is not None


def test_a_name_that_left_the_figures_goes_on_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"unetscope\.plots\.neighbours is unetscope\.analysis\.neighbours now"):
        assert unetscope.plots.neighbours is unetscope.analysis.neighbours


def test_the_root_offers_few_names() -> None:
    assert len(unetscope.__all__) <= 31


def test_the_root_holds_few_modules() -> None:
    assert len(list(SOURCE.glob("*.py*"))) <= MOST_MODULES_AT_THE_ROOT


def test_a_name_that_left_the_package_says_where_it_is() -> None:
    with pytest.raises(AttributeError, match=r"calibration/planted\.py"):
        _ = unetscope.planted_task
