"""TextGrids round-trip, faulty ones are refused by name, and durations always sum to the frames."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_core.errors import WorkbookError
from tts_core.speech.alignment import (
    Alignment,
    Interval,
    frames_from_intervals,
    read_textgrid,
    symbols_and_intervals,
    uniform_durations,
    write_textgrid,
)
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
    with pytest.raises(WorkbookError, match=r"no such TextGrid.*tts-workbook align"):
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
