"""What the benchmarks take from the package and from its tests is there: they are not run with the tests."""

import ast
import importlib

import pytest

from tests.needs import ROOT


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda file: file.name)
def test_what_a_benchmark_imports_is_there(file) -> None:
    missing = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in (
            "smssh_plugin",
            "tests",
        ):
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    try:
                        importlib.import_module(f"{node.module}.{name.name}")
                    except ImportError:
                        missing.append(f"{node.module}.{name.name}")
    assert missing == []
