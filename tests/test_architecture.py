"""The house rules that a reader would otherwise have to trust."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "server" / "holdfast_server"
CLIENT = ROOT / "client" / "python" / "holdfast"

# Who may import whom; a room may always import itself and the errors.
ROOMS = {
    "llama": set(),
    "engine": {"llama"},
    "store": set(),
    "sessions": {"engine", "store"},
    "rpc": {"engine", "store", "sessions"},
}
# What only some may import from outside.
LIBRARIES = {
    "llama_cpp": {"llama"},
    "grpc": {"rpc", ""},
    "google": {"rpc", ""},
    "holdfast": {"rpc", ""},
    "sqlalchemy": {"store"},
    "sqlite3": {"store"},
}


def modules(folder: Path) -> list[Path]:
    """The hand-written modules below a folder."""
    return [path for path in sorted(folder.rglob("*.py")) if "/holdfast/v1/" not in str(path)]


def imports(path: Path) -> set[str]:
    """Everything a module imports, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    """The room a server module belongs to; empty for those beside the rooms."""
    parts = path.relative_to(SERVER).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", modules(SERVER), ids=lambda p: str(p.relative_to(SERVER)))
def test_rooms_import_one_way(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "holdfast_server" and here:
            there = rest.split(".")[0]
            assert there in ROOMS.get(here, set()) | {here, "errors", "__version__"}, name
        assert here in LIBRARIES.get(top, {here}), f"{here or 'the top level'} may not import {name}"


def test_rpc_takes_only_records_from_the_store_and_values_from_the_engine() -> None:
    allowed = {"holdfast_server.store.catalog", "holdfast_server.engine.api"}
    for path in modules(SERVER / "rpc"):
        deep = {
            n.rsplit(".", 1)[0] for n in imports(path) if re.match(r"holdfast_server\.(store|engine)\.", n)
        }
        assert deep <= allowed, path


def test_the_client_never_imports_the_server() -> None:
    for path in modules(CLIENT):
        assert not any(name.startswith("holdfast_server") for name in imports(path)), path


def functions(folder: Path) -> list[int]:
    """Lines of every function below a folder."""
    trees = (ast.parse(path.read_text()) for path in modules(folder))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, kinds))
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes]


@pytest.mark.parametrize("folder", [SERVER, CLIENT], ids=["server", "client"])
def test_files_and_functions_stay_small(folder: Path) -> None:
    for path in modules(folder):
        assert len(path.read_text().splitlines()) <= 400, path
    lengths = functions(folder)
    assert statistics.median(lengths) <= 10
    assert sorted(lengths)[int(len(lengths) * 0.9)] <= 35


@pytest.mark.parametrize("folder", [SERVER, CLIENT], ids=["server", "client"])
def test_modules_and_public_classes_say_what_they_are(folder: Path) -> None:
    for path in modules(folder):
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path}: {node.name}"


def test_no_registry_host_is_named() -> None:
    hosts = re.compile(r"https?://(?!127\.0\.0\.1|localhost|HOST)[a-z0-9.-]+", re.IGNORECASE)
    licence = {ROOT / "LICENSE"}
    for path in [ROOT / "Makefile", *(ROOT / "tools").glob("*"), *modules(SERVER), *modules(CLIENT)]:
        if path.is_file() and path not in licence:
            assert not hosts.search(path.read_text()), path
