"""The house rules that no linter knows, measured on the source itself."""

import ast
import importlib.metadata
import io
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import failures
from daemon.node import TRACERD_VERSION
from dicom_io import errors as dicom_errors
from engines import errors as engine_errors

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("config", "engines", "dicom_io", "db", "daemon")
MODULES = sorted(
    path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "versions" not in path.parts
)
FUNCTION_LINES_MAX = 40
MODULE_LINES_MAX = 400
POSITIONAL_MAX = 5
"""Not counting self; beyond that a frozen dataclass. Keyword-only arguments name themselves."""

BROAD_EXCEPTS = {
    "daemon/failures.py": "contain(): the outer edge of one unit of work",
    "daemon/worker.py": "attempt(): the outer edge of a worker's task",
    "daemon/deliver.py": "deliver(): the outer edge of one association with a destination",
    "daemon/app.py": "a step that raises is logged and stops the node",
    "daemon/schedule.py": "a tick that raises is logged and stops the node",
    "dicom_io/reception.py": "the handler edge of the listener",
    "dicom_io/acceptor.py": "the handler edge of the listener",
}


def code_lines(source: str) -> set[int]:
    """Lines that carry at least one token that is not a comment, a blank or a docstring."""
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    documentation = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - documentation


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_short(path: Path):
    source = path.read_text()
    lines = code_lines(source)
    assert len(lines) <= MODULE_LINES_MAX, f"{len(lines)} code lines"
    for function in functions(ast.parse(source)):
        inside = [line for line in lines if function.lineno <= line <= function.end_lineno]
        assert len(inside) <= FUNCTION_LINES_MAX, f"{function.name}: {len(inside)} code lines"
        named = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        count = len([name for name in named if name not in {"self", "cls"}])
        assert count <= POSITIONAL_MAX, f"{function.name}: {count} positional parameters"


def test_packages_hold_nothing_but_a_docstring():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, path
            assert isinstance(body[0], ast.Expr), path


def test_broad_excepts_stand_only_at_the_outer_edges():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
            )
            name = str(path.relative_to(ROOT))
            assert not broad or name in BROAD_EXCEPTS, f"{name}:{node.lineno} catches everything"


def test_there_is_no_pickle_eval_shell_or_global():
    for path in MODULES:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Global), f"{path}:{node.lineno} global"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cloudpickle", "marshal", "shelve", "joblib"}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and node.attr == "load" and isinstance(node.value, ast.Name):
                assert node.value.id != "torch", f"{path}:{node.lineno} torch.load unpickles"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}"
                assert node.value.value is False, f"{path}:{node.value.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}"
                assert node.value.value is False, f"{path}:{node.value.lineno}"


def test_every_typed_error_has_a_disposition():
    for module in (dicom_errors, engine_errors):
        for name, value in vars(module).items():
            is_leaf = isinstance(value, type) and issubclass(value, Exception) and not value.__subclasses__()
            if is_leaf and value.__module__ == module.__name__:
                assert failures.disposition(value("x")) is not failures.Disposition.BUG, name


def test_no_other_distribution_owns_our_names():
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        assert set(owners.get(package, ["tracerd"])) <= {"tracerd"}, f"{package} also comes with {owners[package]}"


@pytest.mark.parametrize("module", ["daemon.app", "daemon.cli", "dicom_io.listener", "daemon.worker"])
def test_daemon_and_listener_never_import_torch(module: str):
    code = f"import sys, {module}; sys.exit(int(bool({{'torch', 'monai'}} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_the_version_is_the_same_in_the_results_and_in_the_distribution():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert declared == TRACERD_VERSION


def test_every_path_in_the_trees_of_the_documents_exists():
    for document in ("ARCHITECTURE.md",):
        text = (ROOT / document).read_text()
        block = text.split("```")[1]
        paths = [line.split()[0] for line in block.splitlines() if line.strip() and not line.startswith(" ")]
        assert len(paths) > 10
        for path in paths:
            assert (ROOT / path).exists(), f"{document} names {path}"
