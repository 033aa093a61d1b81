"""The page that leads from the two documents evstore began with to what holds them here."""

import ast
import re
from pathlib import Path

import pytest

import evstore
from evstore import agent, errors

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "seeds.md"
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
NAME = re.compile(r"`([A-Z]\w+)(?:\.(\w+))?[^`]*`")


def rows() -> list[list[str]]:
    """Return the cells of each row of the tables, headings aside."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] != "feature"]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_feature_has_a_name_and_a_test(row):
    """No cell is empty, every test that is named is there, and every class and method too."""
    assert len(row) == 3
    assert all(row)
    found = TEST.fullmatch(row[2])
    assert found is not None
    module = ast.parse((TESTS / found[1]).read_text("utf-8"))
    functions = [node.name for node in module.body if isinstance(node, ast.FunctionDef)]
    assert found[2] in functions
    for name, attribute in NAME.findall(row[1]):
        owner = next((owner for owner in (agent, evstore, errors) if hasattr(owner, name)), None)
        assert owner is not None, name
        fields = {field.name for field in getattr(getattr(owner, name), "__attrs_attrs__", ())}
        assert not attribute or attribute in fields | set(dir(getattr(owner, name)))
