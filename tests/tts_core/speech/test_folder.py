"""metadata.csv and its neighbours: every row is either an entry or a rejection with line, fault and
remedy.
"""

import re

import pytest

from tests.corpora import TEXT_0880, make_corpus
from tts_core.errors import WorkbookError
from tts_core.speech.folder import match_id, read_id_list, scan_folder


def test_rows_with_and_without_normalised_text(tmp_path):
    root = make_corpus(
        tmp_path / "c",
        "one|Press 1.|Press one.\ntwo|Thank you.\n\nthree|Hello|\n",
        "one",
        "two",
        "three",
    )
    folder = scan_folder(root)
    assert {entry.id: entry.text for entry in folder.entries} == {
        "one": "Press one.",
        "two": "Thank you.",
        "three": "Hello",
    }
    assert (folder.rejected, folder.warnings, folder.language) == ([], [], "en")


BAD_ROWS = {
    "no separator": ("nothing but words", "line 2: 1 columns"),
    "too many columns": ("bad|a|b|c", "line 2: 4 columns"),
    "empty text": ("bad| |", "line 2: the text is empty"),
    "empty id": ("|some text", "line 2: the id '' is empty"),
    "path upwards": ("../bad|some text", "line 2: the id '../bad' is empty or a path"),
    "absolute path": ("/etc/passwd|some text", "is empty or a path"),
    "backslash": ("..\\bad|some text", "is empty or a path"),
    "id longer than a file name": ("x" * 300 + "|some text", "File name too long"),
    "parent": ("..|some text", "is empty or a path"),
    "duplicate id": ("good|another text", "line 2: a second row with the id 'good'"),
    "no recording": (
        "bad|some text",
        "line 2: there is no .*wavs/bad.wav; add the recording or delete the row",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_rejected_with_its_line_and_the_rest_goes_on(name, tmp_path):
    row, message = BAD_ROWS[name]
    folder = scan_folder(make_corpus(tmp_path / "c", f"good|{TEXT_0880}\n{row}\n", "good"))
    assert [entry.id for entry in folder.entries] == ["good"]
    [rejection] = folder.rejected
    assert re.search(message, rejection.reason)
    assert "metadata.csv" in rejection.reason


def test_byte_order_mark_is_no_part_of_the_first_id(tmp_path):
    root = make_corpus(tmp_path / "c", "", "one")
    (root / "metadata.csv").write_bytes(b"\xef\xbb\xbfone|text\r\n")
    assert [entry.id for entry in scan_folder(root).entries] == ["one"]


def test_line_that_is_not_utf8_is_rejected_alone(tmp_path):
    root = make_corpus(tmp_path / "c", "", "one", "two")
    (root / "metadata.csv").write_bytes(b"one|text\ntwo|caf\xe9\n")
    folder = scan_folder(root)
    assert [entry.id for entry in folder.entries] == ["one"]
    assert (
        folder.rejected[0].id == "two"
        and "line 2" in folder.rejected[0].reason
        and "utf-8" in folder.rejected[0].reason
    )


def test_recording_without_transcript_is_listed(tmp_path):
    root = make_corpus(tmp_path / "c", "one|text\n", "one", "orphan")
    (root / "wavs" / "LOUD.WAV").touch()
    loud, orphan = scan_folder(root).rejected
    assert (
        orphan.id == "orphan"
        and "no transcript; add a row `orphan|text`" in orphan.reason
        and loud.id == "LOUD"
    )


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "no such data folder"),
        (lambda root: root.mkdir(), "no metadata.csv"),
        (lambda root: (root.mkdir(), (root / "metadata.csv").touch()), "no wavs/ in this folder"),
        (
            lambda root: (root.mkdir(), (root / "metadata.csv").touch(), (root / "wavs").mkdir()),
            "are empty",
        ),
    ],
)
def test_folder_that_is_no_corpus(prepare, message, tmp_path):
    root = tmp_path / "corpus"
    prepare(root)
    with pytest.raises(WorkbookError, match=f"{root}: .*{message}"):
        scan_folder(root)


def test_language_comes_from_the_argument_then_the_file_then_the_letters(tmp_path):
    root = make_corpus(tmp_path / "c", "one|Спасибо за звонок\n", "one")
    folder = scan_folder(root)
    assert (
        folder.language == "ru"
        and "look like language 'ru'; write the code into language.txt" in folder.warnings[0]
    )
    (root / "language.txt").write_text("uk\n")
    assert (scan_folder(root).language, scan_folder(root).warnings) == ("uk", [])
    assert scan_folder(root, "bg").language == "bg"


@pytest.mark.parametrize("code", ["Russian language", "r", "ru_RU", "../x"])
def test_language_that_is_no_code(code, tmp_path):
    root = make_corpus(tmp_path / "c", "one|text\n", "one")
    (root / "language.txt").write_text(code)
    with pytest.raises(WorkbookError, match="is no language code; give one word such as en"):
        scan_folder(root)


def test_dictionary_that_is_wrong_stops_with_its_line(tmp_path):
    root = make_corpus(tmp_path / "c", "one|text\n", "one")
    (root / "dictionary.txt").write_text("speech S P IY CH\nzorblax Q\n")
    with pytest.raises(WorkbookError, match=r"dictionary.txt, line 2"):
        scan_folder(root)
    (root / "dictionary.txt").write_bytes(b"caf\xe9 K AE F EY\n")
    with pytest.raises(WorkbookError, match=r"dictionary.txt: not UTF-8"):
        scan_folder(root)


def test_id_lists(tmp_path):
    (tmp_path / "train.txt").write_text("one\n\n two \n")
    assert read_id_list(tmp_path / "train.txt") == ["one", "two"]
    for content in (None, "\n"):
        path = tmp_path / "none.txt"
        if content:
            path.write_text(content)
        with pytest.raises(
            WorkbookError, match=r"none.txt: no such list of clip ids, or it is empty"
        ):
            read_id_list(path)


def test_ids_match_exactly_or_by_a_unique_ending(tmp_path):
    ids = ["a-30", "b-30", "30"]
    assert match_id("30", ids, [], tmp_path) == "30"
    assert match_id("b-30", ids, [], tmp_path) == match_id("b-30", ids[:2], [], tmp_path) == "b-30"
    with pytest.raises(WorkbookError, match=r"2 clips have an id like '30'; there are a-30, b-30$"):
        match_id("30", ids[:2], [], tmp_path)
    with pytest.raises(
        WorkbookError, match="no clips have an id like 'c'; there are a-30, b-30, 30"
    ):
        match_id("c", ids, [], tmp_path)
