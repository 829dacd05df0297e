"""The data report: planted faults are seen, measured and named; sound clips raise no warning."""

import re

import numpy as np
import pytest
import torch

from tests.corpora import ID_0880, ID_0930, LIBRIVOX, RATE, TEXT_0880, make_corpus, tone
from tts_core.config import AudioConfig
from tts_core.metrics.baselines import best_constant_l1, copy_previous_l1
from tts_core.speech.alignment import Alignment, Interval, read_textgrid, write_textgrid
from tts_core.speech.audio import read_wav, resample, save_wav
from tts_workbook.corpus.data_report import (
    N_NAMED,
    check_corpus,
    measure_levels,
    robust_z,
    word_mismatch,
)


@pytest.fixture(scope="module")
def report():
    return check_corpus(LIBRIVOX, AudioConfig())


def test_sound_clips_have_one_row_each_and_no_warning(report, librivox):
    assert [row.id for row in report.rows] == [clip.id for clip in librivox.clips]
    assert (
        [row.warnings for row in report.rows] == [()] * 5
        and report.rejected == []
        and report.warnings == []
    )
    for row in report.rows:
        assert row.duration_sum == row.frames and row.rate == RATE and row.channels == 1
        assert 0.07 < row.seconds_per_phoneme < 0.12 and 20 < row.snr_db < 60


def test_default_clip_has_the_baselines_that_were_measured(report):
    row = next(row for row in report.rows if row.id == ID_0930)
    assert row.best_constant_l1 == pytest.approx(
        1.216, abs=2e-3
    ) and row.copy_previous_l1 == pytest.approx(0.388, abs=2e-3)
    assert (
        row.mel_min == pytest.approx(np.log(1e-5), abs=1e-3)
        and row.floor_share < 0.01
        and row.ceiling_share == 0.0
    )


def test_recipe_of_the_findings_clips_bins_at_its_ceiling():
    shares = [row.ceiling_share for row in check_corpus(LIBRIVOX, AudioConfig.seed()).rows]
    assert min(shares) > 0.1
    assert all(
        "sit at the ceiling" in " ".join(row.warnings)
        for row in check_corpus(LIBRIVOX, AudioConfig.seed()).rows
    )


def test_summary_counts_phonemes(report, librivox):
    summary = report.corpus_summary
    assert summary["phonemes"] == sum(
        symbol != "SIL" for clip in librivox.clips for symbol in clip.phonemes
    )
    assert (
        summary["missing_phonemes"] == ["G", "OY", "TH"] and summary["phoneme_counts"]["AH"] == 22
    )


def test_text_and_rows_hold_every_clip_and_rejection(tmp_path):
    root = make_corpus(tmp_path / "c", f"one|{TEXT_0880}\nbad|zorblax\nabsent|text\n", "one", "bad")
    report = check_corpus(root, AudioConfig())
    text = report.to_text()
    assert [row["id"] for row in report.to_rows()] == ["one"]
    assert (
        "REJECTED bad" in text
        and "zorblax" in text
        and "REJECTED absent" in text
        and "WARNING 2 clips were left out" in text
    )
    assert len(text.splitlines()[0]) == len(text.splitlines()[1])


def test_corpus_without_a_usable_clip_is_reported_not_raised(tmp_path):
    report = check_corpus(make_corpus(tmp_path / "c", "bad|zorblax\n", "bad"), AudioConfig())
    assert report.rows == [] and len(report.rejected) == 1 and "REJECTED bad" in report.to_text()


# --- planted faults -------------------------------------------------------------------------------


def warnings_of(tmp_path, change) -> str:
    """Warnings of sentence 0880 after `change` of its samples (16 kHz); its TextGrid is kept if the
    length is.
    """
    root = make_corpus(tmp_path / "c", f"one|{TEXT_0880}\n", "one", textgrids=True)
    path = root / "wavs" / "one.wav"
    samples, rate = read_wav(path)
    changed = change(samples)
    if len(changed) != len(samples):
        (root / "alignments" / "one.TextGrid").unlink()
    save_wav(path, changed, rate)
    [row] = check_corpus(root, AudioConfig()).rows
    return "; ".join(row.warnings)


QUIET = np.random.default_rng(0).normal(0, 3e-4, 2 * RATE).astype(np.float32)
FAULTS = {
    "clipping": (lambda x: 6 * x, "clipped: record at a lower level"),
    "offset": (lambda x: x + 0.05, "constant offset: apply a high-pass filter"),
    "silence before": (lambda x: np.concatenate([QUIET, x]), "s of silence at the start: trim"),
    "silence after": (lambda x: np.concatenate([x, QUIET]), "s of silence at the end: trim"),
    "silence inside": (
        lambda x: np.concatenate([x[:RATE], QUIET, x[RATE:]]),
        "s of silence inside: cut",
    ),
    "noise": (
        lambda x: x + 0.05 * np.random.default_rng(0).normal(size=len(x)).astype(np.float32),
        "signal to noise about",
    ),
    "none": (lambda x: x, "^$"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_the_audio_is_named(name, tmp_path):
    change, message = FAULTS[name]
    assert re.search(message, warnings_of(tmp_path, change))


def test_transcript_that_differs_from_the_textgrid_is_named(corpus_of_two):
    (corpus_of_two / "metadata.csv").write_text(
        f"one|{TEXT_0880}\ntwo|she was not an ill disposed young woman\n"
    )
    one, two = check_corpus(corpus_of_two, AudioConfig()).rows
    assert (one.word_mismatch, two.word_mismatch) == (0.0, 0.25)
    assert "25.0% of the transcript's words differ from the TextGrid's: align again" in two.warnings


def test_duplicates_are_named_on_both_sides(corpus_of_two):
    one, two = check_corpus(corpus_of_two, AudioConfig()).rows
    assert {"the same audio as two: delete one", "the same text as two"} <= set(one.warnings)
    assert {"the same audio as one: delete one", "the same text as one"} <= set(two.warnings)


def test_of_many_duplicates_a_few_are_named_and_the_others_counted(tmp_path):
    """Each clip that lists all others is 1.5 GB at 13,100 clips of one text (notebooks/LOG.md,
    2026-11-24).
    """
    names = [f"c{index}" for index in range(N_NAMED + 3)]
    root = make_corpus(tmp_path, "".join(f"{name}|{TEXT_0880}\n" for name in names), *names)
    for row in check_corpus(root, AudioConfig()).rows:
        (told,) = [warning for warning in row.warnings if "same text" in warning]
        named = re.findall(r"c\d", told)
        assert (
            len(set(named)) == len(named) == N_NAMED
            and row.id not in named
            and told.endswith(" and 2 more")
        )


def test_uniform_durations_are_named_in_every_row():
    report = check_corpus(LIBRIVOX.parent / "russian", AudioConfig())
    assert (
        all("uniform durations" in " ".join(row.warnings) for row in report.rows)
        and "UNIFORM" in report.warnings[-1]
    )


def test_pace_outlier_is_named(tmp_path):
    """Of six clips with slightly different pace one is twice as slow."""
    paces = {"a": 0.96, "b": 0.98, "c": 1.0, "d": 1.02, "e": 1.04, "slow": 2.0}
    root = make_corpus(tmp_path / "c", "".join(f"{name}|{TEXT_0880}\n" for name in paces), *paces)
    samples, rate = read_wav(root / "wavs" / "a.wav")
    grid = read_textgrid(LIBRIVOX / "alignments" / f"{ID_0880}.TextGrid", len(samples) / rate)
    for name, pace in paces.items():
        stretched = resample(samples, 100, round(100 * pace))
        save_wav(root / "wavs" / f"{name}.wav", stretched, rate)
        phones = tuple(
            Interval(start * pace, end * pace, label) for start, end, label in grid.phones
        )
        write_textgrid(
            root / "alignments" / f"{name}.TextGrid", Alignment((), phones, phones[-1].end)
        )
    rows = {row.id: row for row in check_corpus(root, AudioConfig()).rows}
    assert rows["slow"].pace_z > 3.5 and any(
        "per phoneme is an outlier" in warning for warning in rows["slow"].warnings
    )
    assert all(abs(rows[name].pace_z) <= 3.5 for name in paces if name != "slow")


def test_recogniser_tells_the_wrong_text(corpus_of_two):
    (corpus_of_two / "metadata.csv").write_text(
        f"one|{TEXT_0880}\ntwo|please enter your password and the pound key\n"
    )
    right, wrong = check_corpus(corpus_of_two, AudioConfig(), recognise=True).rows
    assert right.recogniser_wer == pytest.approx(0.375) and wrong.recogniser_wer > 0.9
    assert any("word error rate of the recogniser: listen" in warning for warning in wrong.warnings)
    assert not any("recogniser" in warning for warning in right.warnings)


# --- measurements ---------------------------------------------------------------------------------


def test_best_constant_is_the_best_constant():
    mel = torch.randn(101, 7, generator=torch.Generator().manual_seed(0))
    best = best_constant_l1(mel)
    for shift in (-0.05, 0.05):
        assert best < float((mel - (mel.median(dim=0).values + shift)).abs().mean())
    assert best == pytest.approx(float((mel - mel.median(dim=0).values).abs().mean()))
    assert best_constant_l1(torch.ones(9, 3)) == copy_previous_l1(torch.ones(9, 3)) == 0.0


def test_copy_previous_is_the_mean_step():
    assert copy_previous_l1(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx(1.5)


def test_levels_of_a_built_signal():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1e-3, 4 * RATE).astype(np.float32)
    noise[RATE // 2 : RATE] += tone(0.5)
    noise[2 * RATE : 3 * RATE] += tone(1.0)
    levels = measure_levels(noise, RATE)
    assert levels.silence_start == pytest.approx(0.5, abs=0.02)
    assert levels.silence_end == pytest.approx(1.0, abs=0.02)
    assert levels.silence_inside == pytest.approx(1.0, abs=0.02)
    assert levels.snr_db == pytest.approx(20 * np.log10(0.3 / 2**0.5 / 1e-3), abs=1.5)


def test_robust_z_sees_one_outlier_and_is_silent_about_few_or_equal_values():
    z = robust_z([1.0, 1.1, 0.9, 1.05, 0.95, 5.0])
    assert np.argmax(np.abs(z)) == 5 and z[5] > 10 and np.abs(z[:5]).max() < 3.5
    assert (
        not robust_z([1.0, 9.0]).any() and not robust_z([2.0] * 9).any() and len(robust_z([])) == 0
    )


def test_word_mismatch_counts_missing_and_added_words():
    assert word_mismatch("Don\u2019t stop, now!", ["don't", "stop", "now"]) == 0.0
    assert word_mismatch("one two three four", ["one", "two", "three"]) == pytest.approx(0.25)
    assert word_mismatch("one two", ["one", "two", "two"]) == pytest.approx(0.5)
    assert word_mismatch("one two", []) == 0.0
