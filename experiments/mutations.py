"""How many random faults do the tests see?  One small change of one expression at a time, and the tests that name what it is in.

    python experiments/mutations.py COUNT [SEED] [WORKERS]

A mutation is drawn uniformly over the places of the packages below: another comparison, another arithmetic operator, a number that
is off by one or by a factor of two, True for False, the two values of a `where` exchanged, another reduction of the same kind
(`argmax` for `argmin`, `max` for `min`, `sum` for `mean`), a sign left out.  Docstrings, annotations and messages of errors
are left alone.  The tests are the three files that name most of the mutated function's module; a mutation that none
of them sees is printed with its line, and counts as a survivor, whether it changes what anybody can see or not.

Two CPU cores, about half a minute a mutation.

Results: docs/results.md#mutations
"""

import ast
import concurrent.futures
import copy
import os
import pathlib
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("weight_sharing", "policies", "ask_tell", "proxies", "evaluate", "driver")
OTHERS = ("test_arguments.py", "test_experiments.py", "test_laws.py", "test_methods.py")  # they name everything
SECONDS = 900  # for the tests of a mutation

COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr,
}
NAMES = {"argmax": "argmin", "argmin": "argmax", "max": "min", "min": "max", "maximum": "minimum", "minimum": "maximum"}
NAMES |= {"sum": "mean", "mean": "sum", "any": "all", "all": "any", "cumsum": "cumprod", "exp": "log1p", "log": "sqrt"}


def mutants(node: ast.AST) -> list[ast.AST]:
    """What may stand in the place of an expression."""
    new = copy.deepcopy(node)
    if isinstance(new, ast.Compare) and type(new.ops[0]) in COMPARISONS:
        new.ops[0] = COMPARISONS[type(new.ops[0])]()
    elif isinstance(new, ast.BinOp) and type(new.op) in OPERATORS:
        new.op = OPERATORS[type(new.op)]()
    elif isinstance(new, ast.Constant) and type(new.value) is bool:
        new.value = not new.value
    elif isinstance(new, ast.Constant) and type(new.value) in (int, float):
        return [ast.copy_location(ast.Constant(value), node) for value in (new.value + 1, new.value * 2) if value != new.value]
    elif isinstance(new, ast.Call) and isinstance(new.func, ast.Attribute) and new.func.attr == "where" and len(new.args) == 3:
        new.args[1], new.args[2] = new.args[2], new.args[1]
    elif isinstance(new, ast.Call) and isinstance(new.func, ast.Attribute) and new.func.attr in NAMES:
        new.func.attr = NAMES[new.func.attr]
    elif isinstance(new, ast.UnaryOp) and isinstance(new.op, ast.USub):
        return [new.operand]
    else:
        return []
    return [new]


class Places(ast.NodeVisitor):
    """(node, the function that it is in) of all expressions that may change."""

    def __init__(self):
        self.found, self.inside = [], []

    def visit(self, node):
        if isinstance(node, ast.Raise | ast.AnnAssign | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self.inside.append(node.name)
            for child in node.body:
                self.visit(child)
            self.inside.pop()
            return
        if self.inside and mutants(node):
            self.found.append((node, self.inside[0]))
        self.generic_visit(node)


def places() -> list[tuple[pathlib.Path, ast.AST, str]]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / "jaxnas" / package).rglob("*.py")):
            visitor = Places()
            visitor.visit(ast.parse(path.read_text()))
            found += [(path, node, function) for node, function in visitor.found]
    return found


def mutated(text: str, node: ast.AST, new: ast.AST) -> str:
    """The text with one expression changed, on its own lines."""
    lines = text.splitlines(keepends=True)
    start = sum(map(len, lines[: node.lineno - 1])) + len(lines[node.lineno - 1].encode()[: node.col_offset].decode())
    end = sum(map(len, lines[: node.end_lineno - 1])) + len(lines[node.end_lineno - 1].encode()[: node.end_col_offset].decode())
    return f"{text[:start]}({ast.unparse(new)}){text[end:]}"


def relevant(path: pathlib.Path, function: str) -> list[str]:
    """The three test files that name most of what the module is called and has to offer, and then the function most often."""
    public = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    words = {function, path.stem.strip("_"), *(name for name in public if not name.startswith("_"))}
    files = []
    for file in (ROOT / "tests").glob("test_*.py"):
        named = re.findall(r"\w+", file.read_text())
        if file.name not in OTHERS and (distinct := len(words & set(named))):
            files.append((-distinct, -named.count(function), file.name))
    return [f"tests/{name}" for *_, name in sorted(files)[:3]] or ["tests/test_laws.py"]


def seen(tree: pathlib.Path, tests: list[str]) -> bool:
    """Whether the tests fail, or take too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    try:
        return subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def trees(into: pathlib.Path, count: int) -> queue.SimpleQueue:
    """As many copies of the project, with its data beside them."""
    copies = queue.SimpleQueue()
    data = ROOT.parent / "shared"
    if data.exists():
        (into / "shared").symlink_to(data.resolve())
    for i in range(count):
        ignored = shutil.ignore_patterns(".git", "runs", "__pycache__", ".pytest_cache")
        copies.put(pathlib.Path(shutil.copytree(ROOT, into / f"tree{i}", ignore=ignored)))
    return copies


def main(count: int, seed: int = 0, workers: int = 1) -> None:
    chosen = random.Random(seed).sample(places(), count)
    with tempfile.TemporaryDirectory() as temporary:
        copies = trees(pathlib.Path(temporary), workers)

        def survives(i: int) -> bool:
            path, node, function = chosen[i]
            options = mutants(node)
            new = options[i % len(options)]
            tree = copies.get()
            file = tree / path.relative_to(ROOT)
            text = file.read_text()
            file.write_text(mutated(text, node, new))
            caught = seen(tree, relevant(path, function))
            file.write_text(text)
            copies.put(tree)
            where = f"{path.relative_to(ROOT)}:{node.lineno} {function}"
            print(f"{'seen' if caught else 'SURVIVED'}  {where}: {ast.unparse(node)} -> {ast.unparse(new)}", flush=True)
            return not caught

        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            survivors = sum(pool.map(survives, range(count)))
    print(f"{count - survivors} of {count} were seen, {100 * (1 - survivors / count):.0f} %")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
