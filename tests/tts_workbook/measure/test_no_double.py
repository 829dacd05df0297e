"""One measurement for each question: no public function of measure/ stands in two modules. That
every module names its question, and no two the same, is held by tests/test_house.py.
"""

import ast
from collections import Counter

from tests.conftest import ROOT


def test_no_public_function_stands_in_two_modules():
    names = Counter(
        node.name
        for file in (ROOT / "tts_workbook" / "measure").glob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    )
    assert [name for name, n in names.items() if n > 1] == []
