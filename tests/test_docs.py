"""The code, commands and links of the README and the docs work."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from unetscope.cli.main import app
from unetscope.networks.structure import GapKind

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    library, own_network = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(library.strip().splitlines()) <= 10
    names: dict[str, object] = {}
    exec(library.replace("epochs=10", "epochs=1").replace("(1, 10)", "(1,)"), names)
    assert names["flow"].epochs == (1,)  # type: ignore[attr-defined]
    assert (tmp_path / "u_plot.png").stat().st_size > 10_000
    names = {}
    exec(own_network, names)
    assert names["recorder"].flow.epochs == (0, 1, 2)  # type: ignore[attr-defined]
    assert "skip1" in str(names["structure"])


@pytest.mark.parametrize(
    ("example", "functions"),
    [
        ("nnunet_network.py", {"plain_conv_unet"}),
        ("verify_lightning.py", {"build", "train"}),
        ("verify_monai.py", {"build", "train"}),
    ],
)
def test_the_readme_counts_the_lines_that_a_user_writes(example: str, functions: set[str]) -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("|") and f"(examples/{example})" in line]
    written = ast.parse((REPOSITORY / "examples" / example).read_text(encoding="utf-8")).body
    lines = sum(
        map(lines_of, (node for node in written if isinstance(node, ast.FunctionDef) and node.name in functions))
    )
    assert int(row.split("|")[2]) == lines


def lines_of(function: ast.FunctionDef) -> int:
    """The lines of a function that is documented, without its docstring."""
    documentation = function.body[0]
    assert ast.get_docstring(function)
    assert function.end_lineno is not None
    assert documentation.end_lineno is not None
    return function.end_lineno - function.lineno - (documentation.end_lineno - documentation.lineno)


def test_the_table_of_gaps_names_every_kind() -> None:
    page = (REPOSITORY / "docs" / "your-network.md").read_text(encoding="utf-8")
    assert {kind for kind in GapKind if f"| `{kind}` |" in page} == set(GapKind)


def test_every_command_of_the_readme_parses() -> None:
    import typer

    command = typer.main.get_command(app)
    lines = [
        line.split("#")[0].strip()
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
    ]
    verbs = [shlex.split(line)[1:] for line in lines if line.startswith("unetscope")]
    assert len(verbs) >= 6
    for words in verbs:
        verb, rest = command, list(words)
        while hasattr(verb, "commands") and rest:
            verb = verb.commands[rest.pop(0)]
        context = verb.make_context("unetscope", rest, resilient_parsing=False)
        assert not context.args
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {shlex.split(line)[1] for line in lines if line.startswith("make")} <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_resolves(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
