"""The examples run as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from unetscope.report.render import render_run
from unetscope.runs.folder import RunFolder

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
NEEDS = {"monai_spleen_like": "monai", "smp_unet": "segmentation_models_pytorch", "lightning_callback": "lightning"}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("sketched_figures")
@pytest.mark.parametrize("name", ["plain_loop", "monai_spleen_like", "smp_unet", "lightning_callback"])
def test_an_example_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    example = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    flow = example["main"](str(tmp_path / "run"), 2)
    assert flow.epochs[-1] == 2
    assert flow.skips
    assert RunFolder.open(tmp_path / "run").flow().epochs == flow.epochs
    assert render_run(RunFolder.open(tmp_path / "run")).is_file()
    assert "skip1" in capsys.readouterr().out


@pytest.fixture
def processes_with_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare in every process what conftest declares in this one."""
    site = tmp_path / "site"
    site.mkdir()
    code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import torchvision_stub; torchvision_stub.declare()"
    (site / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)


@pytest.mark.slow
@pytest.mark.usefixtures("processes_with_torchvision")
@pytest.mark.parametrize(("name", "needs"), [("verify_monai", "monai"), ("verify_lightning", "lightning")])
def test_variants_are_retrained_by_the_loop_of_an_example(name: str, needs: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path / "verified")]
    printed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr[-2000:]
    assert "without-skip1: " in printed.stdout
    assert "Dice" in printed.stdout


@pytest.mark.long
@pytest.mark.usefixtures("sketched_figures")
def test_the_code_of_the_notebook_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("monai", reason="monai is an extra")
    notebook = json.loads((EXAMPLES / "your_own_network.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)  # they are made, not kept
    code = "\n".join("".join(cell["source"]) for cell in cells).replace("%matplotlib inline", "")
    assert "range(4)" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("range(4)", "range(3)"), {})
    assert "skip1 ablated: cross-entropy" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("processes_with_torchvision")
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient runs notebooks")
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks")
    pytest.importorskip("monai", reason="monai is an extra")
    notebook = nbformat.read(EXAMPLES / "your_own_network.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "skip4" in printed
    assert "skip1 ablated: cross-entropy" in printed
    figures = [o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(figures) == 2
