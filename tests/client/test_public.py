"""What `import holdfast` offers: sorted, documented, and light."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import errors

PUBLIC = [getattr(holdfast, name) for name in holdfast.__all__ if name not in ("Part", "Picture")]
CLASSES = [member for member in PUBLIC if inspect.isclass(member)]


def test_exports_are_sorted_and_exist() -> None:
    assert holdfast.__all__ == sorted(set(holdfast.__all__))
    assert all(hasattr(holdfast, name) for name in holdfast.__all__)


def test_every_error_is_exported() -> None:
    defined = {
        name for name, member in vars(errors).items() if getattr(member, "__module__", "") == errors.__name__
    }
    assert {name for name in defined if name[0].isupper()} <= set(holdfast.__all__)


@pytest.mark.parametrize("member", PUBLIC, ids=lambda member: member.__name__)
def test_everything_is_documented(member: Any) -> None:
    doc = inspect.getdoc(member)
    assert doc
    assert not doc.startswith(f"{member.__name__}(")  # what dataclass writes when nobody did


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_is_documented(cls: type[Any]) -> None:
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            assert inspect.getdoc(member), f"{cls.__name__}.{name}"


def test_it_is_typed() -> None:
    assert (Path(holdfast.__file__).parent / "py.typed").exists()


def test_importing_it_imports_neither_the_server_nor_what_only_extras_install() -> None:
    program = (
        "import sys, holdfast, holdfast.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    extras = {"holdfast_server", "typer", "rich", "PIL", "numpy", "sqlalchemy", "llama_cpp"}
    assert not extras & set(listed.stdout.split())
