"""One module's source → all its mutants: copies with one small fault each, as a person might make it.

The house's constants (tolerances, half-lives, tables of codes) matter as much as its statements. mutmut 3 changes
nothing outside functions and cosmic-ray starts a process for each mutant, hence operators of our own on Python's ast.
Each mutant replaces the text of one node, so that the rest of the file, and with it the difference, stays readable.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
NEGATED_ANYWAY = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
NOT_TOLD_APART = {"strict", "key", "dtype"}
"""Keyword arguments whose values only guard against programming errors."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    line : where it is
    source : the whole module with it
    difference : the changed lines, "-" before and "+" after
    """

    line: int
    source: str
    difference: tuple[str, ...]


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of the source."""
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    found: list[Mutant] = []
    for node, replacement in _replacements(ast.parse(source)):
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        before = b"".join(lines[first:last])
        end = len(before) - len(lines[last - 1]) + (node.end_col_offset or 0)
        after = before[: node.col_offset] + replacement.encode() + before[end:]
        changed = b"".join((*lines[:first], after, *lines[last:])).decode()
        difference = [f"-{line}" for line in before.decode().splitlines()]
        difference += [f"+{line}" for line in after.decode().splitlines()]
        found.append(Mutant(node.lineno, changed, tuple(difference)))
    return sorted(found, key=lambda mutant: mutant.line)


def _replacements(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """(node, text that takes its place)."""
    skipped = _not_worth_it(tree)
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.expr):
            for changed in _expressions(node):
                yield node, f"({ast.unparse(changed)})"
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield from _negated(node.test)
        if isinstance(node, ast.comprehension):
            for condition in node.ifs:
                yield from _negated(condition)
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or isinstance(node, ast.AugAssign):
            yield node, "pass"


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            operators = [*node.ops[:index], COMPARISONS[type(operator)](), *node.ops[index + 1 :]]
            yield ast.Compare(node.left, operators, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not any(isinstance(part, ast.Constant) and isinstance(part.value, str) for part in (node.left, node.right)):
            yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in CALLS:
            yield ast.Call(ast.Name(CALLS[node.func.id]), node.args, node.keywords)
        elif node.func.id == "abs":
            yield node.args[0]


def _constants(node: ast.Constant) -> Iterator[ast.expr]:
    """True ↔ False; a whole number and one more, another 10 % more and less; a keyword or code, not a sentence."""
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield from (ast.Constant(value * factor) for factor in (1.1, 0.9)) if value else (ast.Constant(1.0),)
    elif isinstance(value, str) and value.strip() and " " not in value.strip():
        yield ast.Constant("X" + value)


def _negated(test: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    twice = isinstance(test, ast.Compare) and isinstance(test.ops[0], NEGATED_ANYWAY) and len(test.ops) == 1
    if not twice and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
        yield test, f"(not ({ast.unparse(test)}))"


def _not_worth_it(tree: ast.Module) -> set[int]:
    """Nodes whose mutants no test could or should tell: types, decorators, documentation, words in messages."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            roots += node.decorator_list
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            roots.append(node.returns)
        if isinstance(node, ast.arg | ast.AnnAssign):
            roots.append(node.annotation)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            roots.append(node)
        if isinstance(node, ast.JoinedStr):
            roots.append(node)
        if isinstance(node, ast.keyword) and node.arg in NOT_TOLD_APART:
            roots.append(node)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            roots.append(node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "message":
            roots.append(node)
    return {id(inner) for root in roots if root is not None for inner in ast.walk(root)}
