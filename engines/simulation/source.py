"""A digest of what the simulator does: its source without comments, docstrings and layout.

Studies are reproducible as long as it stays the same; a cohort's cache and its frozen entry go by it.
"""

from __future__ import annotations

import ast
from functools import cache
from hashlib import sha256
from pathlib import Path

PACKAGE = "engines.simulation"
BEGINS_WITH = "study"
"""The module that makes examinations; it and what it imports of the package are the simulator."""


@cache
def simulator_sha256() -> str:
    """The digest of the simulator that this process runs."""
    return source_sha256(Path(__file__).parent)


def source_sha256(folder: Path) -> str:
    """SHA-256 of the modules in a folder that `study` needs, in the order of their names."""
    digest = sha256()
    for path in modules(folder):
        digest.update(f"{path.stem}\n{meaning(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def modules(folder: Path) -> list[Path]:
    """`study` and every module of the package that it imports, directly or not."""
    found, waiting = set(), [folder / f"{BEGINS_WITH}.py"]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        waiting += [folder / f"{name}.py" for name in _imported(ast.parse(path.read_text(encoding="utf-8")))]
    return sorted(found)


def meaning(source: str) -> str:
    """The syntax tree of a module as text, without strings that stand alone; the same in every version of Python."""
    return _text(ast.parse(source))


def _imported(tree: ast.AST) -> set[str]:
    """Names of modules of the package."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{PACKAGE}."):
            names.add(node.module.removeprefix(f"{PACKAGE}."))
        elif isinstance(node, ast.Import):
            names |= {a.name.removeprefix(f"{PACKAGE}.") for a in node.names if a.name.startswith(f"{PACKAGE}.")}
    return names


def _text(node: object) -> str:
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__} {node.value!r}"
    if isinstance(node, ast.AST):  # empty fields are left out: newer versions of Python have more of them
        fields = [f"{name}={_text(part)}" for name, part in ast.iter_fields(node) if part is not None and part != []]
        return f"{type(node).__name__}({', '.join(fields)})"
    if isinstance(node, list):
        return f"[{', '.join(_text(part) for part in node if not _is_remark(part))}]"
    return repr(node)


def _is_remark(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
