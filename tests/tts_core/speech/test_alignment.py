"""TextGrids round-trip, faulty ones are refused by name, and durations always sum to the frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpora import ID_0880, ID_0930, LIBRIVOX, RATE, TEXT_0880, make_corpus, tone
from tts_core.errors import WorkbookError
from tts_core.speech.alignment import (
    Alignment,
    Interval,
    align_english,
    align_folder,
    frames_from_intervals,
    read_textgrid,
    symbols_and_intervals,
    uniform_durations,
    write_textgrid,
)
from tts_core.speech.audio import read_wav
from tts_core.speech.phonemes import PAUSE

HOP, RATE_OF_MODEL = 256, 22_050


def grid(*tiers: str, end: float = 1.0) -> str:
    """A TextGrid in Praat's short format."""
    return (
        f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n{end}\n<exists>\n{len(tiers)}\n'
        + "\n".join(tiers)
    )


def tier(name: str, *intervals: tuple[float, float, str], end: float = 1.0) -> str:
    rows = "\n".join(f'{start}\n{stop}\n"{label}"' for start, stop, label in intervals)
    return f'"IntervalTier"\n"{name}"\n0\n{end}\n{len(intervals)}\n{rows}\n'


# --- seconds to frames ----------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=60), st.integers(-300, 300))
def test_durations_sum_to_frames_and_boundaries_are_off_by_half_a_frame_at_most(lengths, jitter):
    ends = np.cumsum(lengths)
    intervals = [
        Interval(end - length, end, "x") for end, length in zip(ends, lengths, strict=True)
    ]
    n_frames = max(1, 1 + (round(ends[-1] * RATE_OF_MODEL) + jitter) // HOP)
    durations = frames_from_intervals(intervals, n_frames, RATE_OF_MODEL, HOP)
    assert durations.dtype == np.int64 and durations.sum() == n_frames and durations.min() >= 0
    boundaries = np.cumsum(durations)[:-1]
    exact = np.minimum(ends[:-1] * RATE_OF_MODEL / HOP, n_frames)
    assert np.abs(boundaries - exact).max(initial=0.0) <= 0.5 + 1e-6


@settings(max_examples=100)
@given(st.integers(1, 80), st.integers(1, 800))
def test_uniform_durations_sum_to_frames_and_differ_by_one_at_most(n_phonemes, n_frames):
    durations = uniform_durations(n_phonemes, n_frames)
    assert len(durations) == n_phonemes and durations.sum() == n_frames and np.ptp(durations) <= 1


def test_rounding_does_not_accumulate():
    """A hundred phonemes of 2.4 frames: truncated durations would lose 40 frames."""
    step = 2.4 * HOP / RATE_OF_MODEL
    intervals = [Interval(k * step, (k + 1) * step, "x") for k in range(100)]
    durations = frames_from_intervals(intervals, 241, RATE_OF_MODEL, HOP)
    assert (
        durations.sum() == 241
        and set(durations[:-1]) == {2, 3}
        and abs(durations[:50].sum() - 120) <= 1
    )


def test_neighbouring_pauses_become_one_token():
    symbols, intervals = symbols_and_intervals(
        [
            Interval(0, 1, ""),
            Interval(1, 2, "sp"),
            Interval(2, 3, "AH1"),
            Interval(3, 4, "AH0"),
            Interval(4, 5, "sil"),
        ],
        "en",
    )
    assert symbols == (PAUSE, "AH", "AH", PAUSE)
    assert [interval[:2] for interval in intervals] == [(0, 2), (2, 3), (3, 4), (4, 5)]


# --- TextGrids ------------------------------------------------------------------------------------

labels = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(20, 900), st.one_of(st.just(""), labels)), min_size=1, max_size=20
    ).filter(lambda parts: any(label for _, label in parts))
)
def test_textgrid_round_trip(parts, tmp_path_factory):
    boundaries = np.cumsum([0, *(milliseconds for milliseconds, _ in parts)]) / 1000
    phones = tuple(
        Interval(*span, label)
        for *span, label in zip(
            boundaries[:-1].tolist(),
            boundaries[1:].tolist(),
            [label for _, label in parts],
            strict=True,
        )
    )
    words = tuple(phone for phone in phones if phone.label)
    path = tmp_path_factory.mktemp("grid") / "clip.TextGrid"
    write_textgrid(path, Alignment(words, phones, phones[-1].end))
    again = read_textgrid(path, phones[-1].end)
    merged = [list(group) for group in symbols_and_intervals(phones, "xx")]
    assert again.words == words
    assert [list(group) for group in symbols_and_intervals(again.phones, "xx")] == merged
    assert list(path.parent.iterdir()) == [path]


BAD_GRIDS = {
    "empty": ("", "not a readable TextGrid"),
    "broken syntax": (
        grid(tier("phones", (0, 1, "AH")))[:-12],
        "not a readable TextGrid|tier named 'phones'|0 phones",
    ),
    "no TextGrid": ("<html>404</html>", "not a readable TextGrid"),
    "words only": (
        grid(tier("words", (0, 1, "he")), tier("notes", (0, 1, "x"))),
        "no interval tier named 'phones', only 'words', 'notes'",
    ),
    "point tier": (
        grid('"TextTier"\n"phones"\n0\n1\n1\n0.5\n"AH"\n'),
        "no interval tier named 'phones'",
    ),
    "only pauses": (grid(tier("phones", (0, 1, ""))), "0 phones"),
    "no phones": (grid(tier("phones")), "0 phones"),
    "overlap": (grid(tier("phones", (0, 0.6, "AH"), (0.4, 1, "T"))), "overlap"),
    "backwards": (
        grid(tier("phones", (0, 0.5, "AH"), (1.0, 0.5, "T"))),
        "ends? after|start|not a readable",
    ),
    "longer than the audio": (
        grid(tier("phones", (0, 2, "AH"), end=2.0), end=2.0),
        "end at 2.000 s, but the audio ends at 1.000",
    ),
    "shorter than the audio": (
        grid(tier("phones", (0, 0.5, "AH"), end=0.5), end=0.5),
        "end at 0.500 s, but the audio ends at 1.000",
    ),
    "interval beyond the end": (grid(tier("phones", (0, 1.5, "AH"))), "1.500 s"),
    "infinite": (grid(tier("phones", (0, 1, "AH"), end="1e999"), end="1e999"), "1e999"),
    "before the audio": (
        grid(tier("phones", (-0.5, 0.5, "AH"), (0.5, 1, "T"))),
        "-0.5 to 0.5 s.*follow each other",
    ),
    "after the audio": (
        grid(tier("phones", (0, 1, "AH"), (1.01, 1.04, "T"), end=1.04), end=1.04),
        "ends at 1.040 s, the audio at 1.000",
    ),
    "NaN": (grid(tier("phones", (0, "nan", "AH"))), "nan"),
}


@pytest.mark.parametrize("name", BAD_GRIDS)
def test_bad_textgrid_is_refused_with_file_and_fault(name, tmp_path):
    path, (content, message) = tmp_path / "clip.TextGrid", BAD_GRIDS[name]
    path.write_text(content)
    with pytest.raises(WorkbookError, match=message) as caught:
        read_textgrid(path, seconds=1.0)
    assert str(caught.value).startswith(str(path))


def test_missing_and_huge_textgrids_are_refused(tmp_path):
    path = tmp_path / "clip.TextGrid"
    with pytest.raises(WorkbookError, match="no such TextGrid.*tts-workbook align"):
        read_textgrid(path)
    path.write_bytes(bytes(6_000_000))
    with pytest.raises(WorkbookError, match="5,000,000 bytes"):
        read_textgrid(path)


def test_gaps_become_pauses_and_small_length_differences_are_absorbed(tmp_path):
    path = tmp_path / "clip.TextGrid"
    path.write_text(
        grid(
            tier("Ann - phones", (0.1, 0.5, "AH0"), (0.6, 0.9995, "T")),
            tier("Ann - words", (0.1, 1, "at")),
        )
    )
    alignment = read_textgrid(path, seconds=1.02)
    assert [(phone.start, phone.end, phone.label) for phone in alignment.phones] == [
        (0.0, 0.1, ""),
        (0.1, 0.5, "AH0"),
        (0.5, 0.6, ""),
        (0.6, 0.9995, "T"),
        (0.9995, 1.02, ""),
    ]
    assert [word.label for word in alignment.words] == ["at"]


def test_intervals_out_of_order_are_sorted(tmp_path):
    path = tmp_path / "clip.TextGrid"
    path.write_text(grid(tier("phones", (0.5, 1, "AH"), (0, 0.5, "T"))))
    assert [phone.label for phone in read_textgrid(path, 1.0).phones] == ["T", "AH"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_praat_encodings(encoding, tmp_path):
    path = tmp_path / "clip.TextGrid"
    path.write_bytes(grid(tier("phones", (0, 1, "ʒ"))).encode(encoding))
    assert read_textgrid(path).phones == (Interval(0.0, 1.0, "ʒ"),)


# --- forced alignment -----------------------------------------------------------------------------


def test_bundled_textgrid_is_what_the_aligner_makes():
    samples, rate = read_wav(LIBRIVOX / "wavs" / f"{ID_0930}.wav")
    alignment = align_english(samples, rate, "he might even have been made amiable himself")
    bundled = read_textgrid(LIBRIVOX / "alignments" / f"{ID_0930}.TextGrid", len(samples) / rate)
    assert [word.label for word in alignment.words] == [
        "he",
        "might",
        "even",
        "have",
        "been",
        "made",
        "amiable",
        "himself",
    ]
    assert alignment == bundled


def test_alignment_does_not_depend_on_what_was_aligned_before():
    samples, rate = read_wav(LIBRIVOX / "wavs" / f"{ID_0880}.wav")
    first = align_english(samples, rate, TEXT_0880)
    align_english(
        *read_wav(LIBRIVOX / "wavs" / f"{ID_0930}.wav"),
        "he might even have been made amiable himself",
    )
    assert align_english(samples, rate, TEXT_0880) == first


def test_speech_starts_and_ends_where_the_energy_does():
    samples, rate = read_wav(LIBRIVOX / "wavs" / f"{ID_0880}.wav")
    silence = np.random.default_rng(0).normal(0, 1e-4, rate // 2).astype(np.float32)
    alignment = align_english(np.concatenate([silence, samples, silence]), rate, TEXT_0880)
    plain = align_english(samples, rate, TEXT_0880)
    assert alignment.words[0].start == pytest.approx(plain.words[0].start + 0.5, abs=0.05)
    assert alignment.words[-1].end == pytest.approx(plain.words[-1].end + 0.5, abs=0.08)


def test_recording_that_does_not_hold_the_text_is_refused():
    with pytest.raises(WorkbookError, match="does the recording say"):
        align_english(
            tone(0.3),
            RATE,
            "this is far too long a sentence to be spoken in a third of a second " * 3,
        )


def test_align_folder_reports_each_clip_and_goes_on(tmp_path):
    root = make_corpus(
        tmp_path / "corpus",
        f"good|{TEXT_0880}\nword|he was zorblax\nabsent|no recording\n",
        "good",
        "word",
    )
    results = {result.id: result for result in align_folder(root)}
    assert {name: result.status for name, result in results.items()} == {
        "good": "written",
        "word": "failed",
        "absent": "failed",
    }
    assert "zorblax" in results["word"].reason and "absent.wav" in results["absent"].reason
    assert [path.name for path in (root / "alignments").iterdir()] == ["good.TextGrid"]


def test_align_folder_keeps_what_is_there_unless_told_otherwise(corpus_of_two):
    path = corpus_of_two / "alignments" / "one.TextGrid"
    path.write_text("mine")
    assert [result.status for result in align_folder(corpus_of_two)] == ["kept", "kept"]
    assert path.read_text() == "mine"
    assert [result.status for result in align_folder(corpus_of_two, overwrite=True)] == [
        "written",
        "written",
    ]
    assert path.read_bytes() == (LIBRIVOX / "alignments" / f"{ID_0880}.TextGrid").read_bytes()


def test_user_dictionary_is_used_for_alignment(tmp_path):
    root = make_corpus(tmp_path / "corpus", "one|he was not an ill disposed zorblax\n", "one")
    (root / "dictionary.txt").write_text("zorblax  Y AH1 NG M AE1 N\n")
    [result] = align_folder(root)
    assert result.status == "written"
    assert read_textgrid(result.path).words[-1].label == "zorblax"


def test_other_languages_are_pointed_to_the_montreal_forced_aligner(corpus_of_two):
    (corpus_of_two / "language.txt").write_text("ru")
    with pytest.raises(WorkbookError, match="language 'ru'.*Montreal Forced Aligner"):
        align_folder(corpus_of_two)
