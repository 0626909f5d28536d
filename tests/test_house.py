"""The structure of the code: what may import what, and files that a stranger finds and reads."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOMS = ("pipeline", "stages")
FILES = sorted(path for room in ROOMS for path in Path(room).rglob("*.py"))
COMMAND_LINE = {Path("pipeline/__main__.py"), *Path("pipeline/command_line").glob("*.py")}
"""It puts the two together."""


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules of the code that a file imports anywhere in it, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name in MODULES and (name not in {module_name(path)}):
                found.add(name)
    packages = {name for name in found if any(other.startswith(f"{name}.") for other in found)}
    return frozenset(found - packages)


def test_the_pipeline_knows_no_stage() -> None:
    for path in FILES:
        if path.parts[0] == "pipeline" and path not in COMMAND_LINE:
            assert not [name for name in imports(path) if name.startswith("stages")], path


def test_no_file_imports_itself_over_others() -> None:
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(imports(MODULES[name])):
                visit(other, (*above, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.name for path in FILES if path.name not in {"__init__.py", "__main__.py"})
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 70, f"{path}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_and_what_it_offers_are_described(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name == "__init__.py" and not tree.body:
        return
    assert ast.get_docstring(tree), path
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or isinstance(node, ast.ClassDef), f"{path}: {node.name}"


def test_a_folder_holds_few_files() -> None:
    counts = Counter(path.parent for path in FILES)
    assert {str(folder): count for folder, count in counts.items() if count > 24} == {}
