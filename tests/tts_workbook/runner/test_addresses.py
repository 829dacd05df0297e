"""Addresses of subjects: made absolute by every door, and the source behind them, which a resumed
run goes by.
"""

import sys
from pathlib import Path

import pytest

from tts_core.errors import WorkbookError
from tts_workbook.runner.parameters import read_given, repository_root, settle, settle_in_notebook
from tts_workbook.subject.addresses import absolute_address, is_address, short_address, source_files
from tts_workbook.subject.loading import hash_subject


def write(folder, files):
    for name, text in files.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def names(folder, address):
    root, files = source_files(address, folder)
    return [str(file.relative_to(root)) for file in files]


def test_what_is_written_like_an_address():
    assert all(map(is_address, ("a.b:c", "a:c", "x/y.py:c", "/x/y z.py:c", "~/y.py:c")))
    assert not any(
        map(is_address, ("a.b", "a.b:", ":c", "a-b:c", "x/y:c", "y.py:c.d", "a:b:c", ""))
    )
    assert (
        short_address("/a/b/mine.py:subject") == "mine.py:subject"
        and short_address("pkg.mine:subject") == "pkg.mine:subject"
    )


def test_files_are_absolute_and_modules_stay_through_every_door(tmp_path):
    assert absolute_address("b/mine.py:s", Path("/a")) == "/a/b/mine.py:s"
    assert absolute_address("pkg.mine:s", Path("/a")) == "pkg.mine:s"
    assert absolute_address("~/mine.py:s", Path("/a")) == f"{Path.home()}/mine.py:s"
    assert read_given({"subject": "mine.py:s"}, {}, tmp_path)["subject"] == f"{tmp_path}/mine.py:s"
    assert (
        read_given({}, {"TTS_WORKBOOK_SUBJECT": "../mine.py:s"}, tmp_path)["subject"]
        == f"{tmp_path.parent}/mine.py:s"
    )
    assert (
        settle({}, {"subject": "mine.py:s"}, tmp_path, tmp_path, "cell").subject
        == f"{tmp_path}/mine.py:s"
    )
    assert (
        settle_in_notebook({"subject": "examples/mine.py:s"}, {}).subject
        == f"{repository_root()}/examples/mine.py:s"
    )
    with pytest.raises(
        WorkbookError,
        match=r"subject = 'mine\.py', but it must be package\.module:name or file\.py:name",
    ):
        read_given({"subject": "mine.py"}, {}, tmp_path)


def test_source_is_the_file_and_what_it_imports_from_its_folder(tmp_path):
    write(
        tmp_path,
        {
            "mine": (
                "import json, torch, tts_core\nfrom parts import a\nimport pkg.deep\ndef f():\n   "
                " import lazy"
            ),
            "parts": "import mine",
            "lazy": "",
            "unused": "",
            "pkg/__init__": "",
            "pkg/deep": "from . import near\nfrom .. import beyond",
            "pkg/near": "from pkg.far import x",
            "pkg/far": "(",
            "pkg/unread": "",
            "tts_core/__init__": "",
        },
    )
    assert names(Path("/elsewhere"), f"{tmp_path}/mine.py:s") == [
        "lazy.py",
        "mine.py",
        "parts.py",
        "pkg/__init__.py",
        "pkg/deep.py",
        "pkg/far.py",
        "pkg/near.py",
    ]
    assert names(tmp_path, "pkg.near:s") == ["pkg/__init__.py", "pkg/far.py", "pkg/near.py"]
    assert names(tmp_path, "pkg:s") == ["pkg/__init__.py"]
    assert names(tmp_path, "pkg.missing:s") == [] == names(tmp_path, "none.py:s")


def test_installed_packages_are_not_read_through(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    write(
        installed,
        {
            "theirs/__init__": "import torch_like\nfrom theirs import more",
            "theirs/more": "",
            "torch_like/__init__": "",
        },
    )
    monkeypatch.setattr(sys, "path", [str(installed)])
    assert names(tmp_path, "theirs:s") == ["theirs/__init__.py", "theirs/more.py"]
    write(tmp_path, {"mine": "import theirs"})
    assert names(tmp_path, "mine:s") == ["mine.py"]


def test_the_hash_follows_the_source_and_the_checkpoint_and_no_place(tmp_path):
    seen = set()

    def look(folder, checkpoint=None):
        seen.add(hash_subject(f"{folder}/mine.py:s", tmp_path, checkpoint)["hash"])
        return len(seen)

    for place in ("a", "b"):
        write(tmp_path / place, {"mine": "import parts", "parts": "x = 1", "unused": ""})
    assert look(tmp_path / "a") == look(tmp_path / "b") == 1
    write(tmp_path / "a", {"unused": "y = 2"})
    assert look(tmp_path / "a") == 1
    write(tmp_path / "a", {"parts": "x = 2"})
    assert look(tmp_path / "a") == 2
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"1")
    assert look(tmp_path / "a", weights) == 3
    weights.write_bytes(b"2")
    assert look(tmp_path / "a", weights) == 4 == look(tmp_path / "a", weights)
