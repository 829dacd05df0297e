"""Files are complete under their final name or not there; a failure in between leaves the old
one.
"""

import errno
import os
import subprocess
import sys

import pytest

from tts_core import atomic_files


def test_content_and_folders(tmp_path):
    atomic_files.write_text(tmp_path / "new" / "a.txt", "zwölf\udc80")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "zwölf\\udc80".encode()
    atomic_files.write_json(tmp_path / "a.json", {"π": [1.5, None]})
    assert atomic_files.read_json(tmp_path / "a.json") == {"π": [1.5, None]}


def test_json_refuses_nan_before_writing(tmp_path):
    with pytest.raises(ValueError):
        atomic_files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    target = tmp_path / "verdict.json"
    atomic_files.write_text(target, "old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        atomic_files.write_text(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == [
        "verdict.json"
    ] and target.read_text() == "old"


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path):
    target = tmp_path / "verdict.json"
    atomic_files.write_text(target, "old")
    program = (
        "import os, sys; from tts_core import atomic_files\nos.replace = lambda *_:"
        " os.kill(os.getpid(), 9)\natomic_files.write_text(sys.argv[1], 'new' * 1000)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(target)]).returncode == -9
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    atomic_files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]


def test_appended_lines_are_whole_even_when_the_disk_fills(tmp_path, monkeypatch):
    target = tmp_path / "metrics" / "03.jsonl"
    atomic_files.append_line(target, '{"step": 1}')
    genuine, calls = os.write, []

    def short_then_full(descriptor, content):
        calls.append(len(content))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return genuine(descriptor, content[:5])

    monkeypatch.setattr(os, "write", short_then_full)
    with pytest.raises(OSError, match="No space left"):
        atomic_files.append_line(target, '{"step": 2}')
    monkeypatch.undo()
    assert target.read_text() == '{"step": 1}\n'
    atomic_files.append_line(target, '{"step": 3}')
    assert target.read_text() == '{"step": 1}\n{"step": 3}\n'
