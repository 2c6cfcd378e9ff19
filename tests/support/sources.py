"""The project's own files and what stands in them, read as syntax trees. For tests of the house; imports none of them."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
CODE: Final = ("pipeline", "consumers")
TABLE: Final = "pipeline/domain/transitions.py"
STATES: Final = frozenset({"PENDING", "OPEN", "MITIGATING", "RESOLVED", "CLOSED", "CANCELLED", "ARCHIVED"})


@cache
def files() -> tuple[str, ...]:
    """Return every file of the project that is kept: tracked by git or about to be, never what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(sorted(name for name in set(listed) if (ROOT / name).is_file()))


def modules(*folders: str) -> list[str]:
    """Return the python files under `folders`, as paths from the root."""
    return [name for name in files() if name.endswith(".py") and name.split("/")[0] in folders]


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(text(name), name)


def imports(name: str) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of everything a module imports, names of a `from` import included."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: imports are absolute"
            yield node.lineno, node.module or ""
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` for a chain of attributes, or the empty text."""
    if isinstance(node, ast.Attribute):
        front = dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return node.id if isinstance(node, ast.Name) else ""


def state_comparisons(name: str) -> Iterator[str]:
    """Yield where a module compares with, matches or collects a state: what only the table of transitions may do."""
    for node in ast.walk(tree(name)):
        match node:
            case ast.Compare():
                compared = [node.left, *node.comparators]
            case ast.MatchValue(value=value):
                compared = [value]
            case ast.Set():
                compared = list(node.elts)
            case _:
                continue
        if any(_is_state(part) for whole in compared for part in ast.walk(whole)):
            yield f"{name}:{node.lineno}: {ast.unparse(node)}"


def _is_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value in STATES
    return dotted(node).removesuffix(".value").split(".")[-2:-1] == ["State"]


def broad_excepts(name: str) -> Iterator[str]:
    """Yield every handler that catches everything and keeps it; cleaning up and raising again is no catching."""
    for node in ast.walk(tree(name)):
        if not isinstance(node, ast.ExceptHandler) or (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
            continue
        if node.type is None or any(dotted(part) in ("Exception", "BaseException") for part in ast.walk(node.type)):
            yield f"{name}:{node.lineno}"


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
