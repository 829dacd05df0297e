"""The choice of bundled prompts: disjoint, balanced, different; and what the script says when
something is missing.
"""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from tts_core.errors import WorkbookError

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "build_data_samples.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_data_samples", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def make_prompts(script, texts: dict[str, str], monkeypatch):
    monkeypatch.setattr(script.Prompt, "seconds", 1.0)
    return [
        script.Prompt(name, text, text, Path(name), Counter(text.replace(" ", "")))
        for name, text in texts.items()
    ]


def test_choice_prefers_rare_units_to_many_of_one(script, monkeypatch):
    texts = {"abc": "a b c", "aaa": "a a a", "dcb": "d c b"}
    [chosen] = script.choose_balanced(make_prompts(script, texts, monkeypatch), [2])
    assert {prompt.id for prompt in chosen} == {"abc", "dcb"}


def test_sets_are_disjoint_and_each_is_covered_by_itself(script, monkeypatch):
    texts = {"1": "a b", "2": "b a", "3": "a a", "4": "b b"}
    sets = script.choose_balanced(make_prompts(script, texts, monkeypatch), [1, 1])
    assert [{prompt.id for prompt in chosen} for chosen in sets] == [{"2"}, {"1"}]


def test_choice_takes_no_two_similar_texts(script, monkeypatch):
    texts = {"one": "please enter the number", "two": "please enter the code", "three": "thank you"}
    [chosen] = script.choose_balanced(make_prompts(script, texts, monkeypatch), [2])
    assert "three" in {prompt.id for prompt in chosen}
    with pytest.raises(WorkbookError, match="only 2 prompts are fit and different"):
        script.choose_balanced(make_prompts(script, texts, monkeypatch), [3])


def run_without(script, monkeypatch, capsys, folder: Path, programs: str, *arguments: str) -> str:
    """What the script prints to stderr where PATH has only `programs`; it must end with exit code
    2.
    """
    for program in programs.split():
        (folder / program).write_text("#!/bin/sh\n")
        (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(
        sys, "argv", ["build_data_samples", "--out", str(folder / "out"), *arguments]
    )
    assert script.main() == 2 and not (folder / "out").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ("", "needs `ffmpeg`.*apt-get install ffmpeg"),
        ("ffmpeg", "needs `dpkg-deb`.*Debian"),
        ("ffmpeg dpkg-deb", "needs `apt-get`.*--debs DIR with the packages pocketsphinx-testdata"),
    ],
)
def test_missing_programs_are_named_with_the_way_to_get_them(
    programs, message, script, monkeypatch, capsys, tmp_path
):
    assert re.search(message, run_without(script, monkeypatch, capsys, tmp_path, programs))


def test_folder_without_the_packages_names_them(script, monkeypatch, capsys, tmp_path):
    complaint = run_without(
        script, monkeypatch, capsys, tmp_path, "ffmpeg dpkg-deb", "--debs", str(tmp_path)
    )
    assert (
        "no pocketsphinx-testdata_*.deb; `apt-get download pocketsphinx-testdata` gets it"
        in complaint
    )


def test_existing_folder_is_not_overwritten_by_all(script, monkeypatch, capsys, tmp_path):
    assert "--all wants a new folder" in run_without(
        script, monkeypatch, capsys, tmp_path, "", "--all", str(tmp_path)
    )
