"""Count the package: files, lines of code, docstrings and comments, long functions, wide constructors, names that name nothing.

Run as `python scripts/count_code.py [FOLDER]`, by default `src/unetscope`; a checkout of an older version is counted alike.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

VAGUE = {"found", "told", "said", "one", "known", "there", "other", "given", "wanted"}
LONG_FUNCTION, LONG_CLASS, LONG_FILE, MANY_PARAMETERS = 50, 250, 400, 10


def bound_names(tree: ast.AST) -> list[str]:
    """Every name that is bound: by an assignment, a loop, a parameter, a `with` or a walrus."""
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return names + [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]


def docstring_lines(tree: ast.AST) -> set[int]:
    """The numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def count(folder: Path) -> tuple[Counter[str], list[str]]:
    """Totals over the Python files of a folder, and what is longer or wider than this code base allows itself."""
    totals: Counter[str] = Counter()
    notes: list[str] = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree, docstrings = ast.parse(text), docstring_lines(ast.parse(text))
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
        blank_or_comment = {
            n for n, line in enumerate(text.splitlines(), 1) if not line.strip() or line.strip()[0] == "#"
        }
        lines = len(text.splitlines())
        names = bound_names(tree)
        totals.update(
            {
                "files": 1,
                "lines": lines,
                "lines of docstrings": len(docstrings),
                "lines of code": lines - len(docstrings | blank_or_comment),
                "comments": len(comments),
                "names bound": len(names),
                "names that name nothing": sum(name in VAGUE for name in names),
            }
        )
        if lines > LONG_FILE:
            notes.append(f"{path.relative_to(folder)}: {lines} lines")
        for node in ast.walk(tree):
            length = (getattr(node, "end_lineno", 0) or 0) - getattr(node, "lineno", 0) + 1
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                totals["functions"] += 1
                if length > LONG_FUNCTION:
                    totals["functions over 50 lines"] += 1
                    notes.append(f"{path.relative_to(folder)}: {node.name} has {length} lines")
                parameters = len(node.args.args) + len(node.args.kwonlyargs) - (node.name == "__init__")
                if node.name == "__init__" and parameters > MANY_PARAMETERS:
                    notes.append(f"{path.relative_to(folder)}: a constructor has {parameters} parameters")
            elif isinstance(node, ast.ClassDef) and length > LONG_CLASS:
                notes.append(f"{path.relative_to(folder)}: {node.name} has {length} lines")
    return totals, notes


def main() -> None:
    """Print the totals, a line each, and what exceeds the limits."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "src" / "unetscope"
    totals, notes = count(folder)
    for name, total in totals.items():
        print(f"{name:26}{total:8,}")
    print(f"{'share that names nothing':26}{totals['names that name nothing'] / totals['names bound']:8.1%}")
    print(*notes, sep="\n")


if __name__ == "__main__":
    main()
