"""The one direction of the data: every import of the package goes down this list, never up."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unetscope"

MAY_IMPORT = {
    "errors": "",
    "records": "",
    "files": "",
    "watching": "",
    "processes": "",
    "randomness": "",
    "sparklines": "",
    "schedule": "errors",
    "config": "errors",
    "data": "errors files randomness data",
    "flow": "errors records files",
    "variants": "errors",
    "verdict": "errors records flow variants",
    "intervals": "errors records",
    "labels": "errors",
    "calls": "errors",
    "ranks": "",
    "tensors": "data",
    "unet": "errors records",
    "cost": "",
    "models": "errors files unet",
    "arena": "errors",
    "precision": "",
    "budget": "errors records",
    "capture": "errors records ranks calls arena precision budget",
    "recording": "calls capture",
    "structure": "errors randomness records capture recording",
    "ablation": "errors calls capture structure",
    "distances": "ranks precision budget",
    "symbols": "budget",
    "moments": "errors",
    "estimators": "errors records intervals labels moments estimators",
    "probing": "errors records ranks intervals capture moments estimators",
    "layer_statistics": "errors records capture distances symbols estimators",
    "merges": "records intervals estimators",
    "measure": (
        "errors randomness records ranks flow schedule labels data tensors arena precision budget capture structure distances "
        "estimators probing layer_statistics merges"
    ),
    "checkpoints": "errors files",
    "training": "errors records config data tensors precision checkpoints",
    "store": "errors records files flow",
    "trackers": "errors files records store trackers",
    "recorder": "errors data flow measure ranks records store trackers",
    "integrations": "errors data flow ranks recorder",
    "experiment": (
        "errors records watching schedule config data labels tensors unet budget capture estimators layer_statistics measure "
        "checkpoints training store trackers"
    ),
    "jobs": "errors processes config experiment capture schedule store tensors training unet watching",
    "engines": "errors jobs engines",
    "retraining": "errors config engines store variants watching",
    "verification": "errors records intervals store variants verdict retraining engines watching",
    "networks": "errors structure",
    "selfcheck": "records capture distances symbols estimators probing",
    "rankings": "errors records flow intervals",
    "descents": "errors records flow intervals",
    "plots": "errors records files schedule flow intervals rankings verdict verification plots",
    "forecast": (
        "errors records watching config tensors budget capture layer_statistics measure checkpoints training experiment "
        "plots"
    ),
    "report": "errors files report",
    "digest": "config flow records descents rankings schedule store variants verdict verification",
    "presentation": "records flow digest store verification plots report watching",
    "viewing": "errors files digest presentation report store",
    "slimming": "errors config data files experiment checkpoints store training unet models variants cost verification "
    "watching",
    "terminal": (
        "watching sparklines flow data forecast records selfcheck store structure variants cost retraining slimming verdict "
        "verification"
    ),
    "cli": "errors config data engines flow store verdict retraining verification watching terminal experiment forecast "
    "networks plots presentation processes selfcheck slimming trackers viewing",
    "__main__": "cli",
}
WITHOUT_TORCH = (
    "flow",
    "verdict",
    "verification",
    "plots",
    "report",
    "digest",
    "presentation",
    "viewing",
    "store",
    "config",
    "cli",
    "data",
    "terminal",
    "trackers",
)


def modules() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or path.stem != "__init__"]


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "unetscope":
                names = [f"unetscope.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("unetscope.")}
    return found - {"__version__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    assert room(path) in MAY_IMPORT, f"{room(path)} is a new room: give it its place in the direction of the data"
    upwards = imported_rooms(path) - set(MAY_IMPORT[room(path)].split()) - {room(path)}
    assert not upwards, f"{path.name} imports {sorted(upwards)}, which {room(path)} may not"


def test_the_direction_has_no_circle() -> None:
    above: set[str] = set()
    for name, allowed in MAY_IMPORT.items():
        assert set(allowed.split()) <= above | {name}
        above.add(name)


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_tables_and_figures_never_load_torch(name: str) -> None:
    code = f"import sys, unetscope.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import unetscope

    for name in unetscope.__all__:
        assert getattr(unetscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Unet'"):
        unetscope.Unet  # noqa: B018


def test_every_room_is_in_the_table_of_the_docs() -> None:
    table = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [name for name in MAY_IMPORT if f"`{name}" not in table]
    assert not missing, f"docs/architecture.md says nothing of {missing}"
