"""One measurement for each question: every module of measure/ says which it answers, and no two
answer the same.
"""

import ast
from collections import Counter

from tests.conftest import ROOT

FILES = sorted((ROOT / "tts_workbook" / "measure").glob("[a-z]*.py"))


def questions():
    """File name -> the text of its constant `question`."""
    found = {}
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "question":
                found[file.stem] = ast.literal_eval(node.value)
    return found


def test_every_module_names_its_question():
    found = questions()
    assert len(FILES) > 25 and {file.stem for file in FILES} == set(found)
    assert all(text.endswith("?") and text[0].isupper() for text in found.values())


def test_no_question_is_asked_twice():
    asked = Counter(text.lower() for text in questions().values())
    assert [text for text, n in asked.items() if n > 1] == []


def test_no_public_function_stands_in_two_modules():
    names = Counter(
        node.name
        for file in FILES
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    )
    assert [name for name, n in names.items() if n > 1] == []
