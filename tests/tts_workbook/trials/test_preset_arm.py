"""Arms on real speech at smoke size: what they share, what they carry, and what they refuse."""

import shutil

import pytest
import torch

from tests.conftest import ROOT
from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.model.generation import free_run
from tts_core.speech.phonemes import Vocabulary
from tts_workbook.trials.clip_choice import open_clip, several_clips
from tts_workbook.trials.preset_arm import (
    build_arm,
    judge_arm,
    load_arm,
    snapshot_plan,
    train_arm,
)

LIBRIVOX = ROOT / "data_samples" / "librivox"


@pytest.fixture(scope="module")
def opened():
    return open_clip(LIBRIVOX)


def test_arms_share_clip_weights_and_seed_and_the_seed_has_its_own_recipe(opened):
    corpus, clip = opened
    healthy, no_norm, seed = (
        build_arm(name, [clip], corpus.vocabulary, "smoke", seed=3)
        for name in ("healthy", "no_norm", "seed")
    )
    assert (
        torch.equal(healthy.batch.mel, no_norm.batch.mel)
        and healthy.batch.mel.shape == seed.batch.mel.shape
    )
    assert (healthy.recipe, no_norm.recipe, seed.recipe) == ("standard", "standard", "seed")
    assert float(seed.batch.mel.max()) == 0.0 and float(seed.batch.mel.min()) >= -11.5 - 1e-4
    assert seed.experiment.optimizer.lr == 7e-5
    for name, weight in no_norm.model.named_parameters():
        assert torch.equal(weight, healthy.model.get_parameter(name))


def test_a_trained_arm_comes_back_from_its_checkpoint(opened, tmp_path):
    corpus, clip = opened
    arm = build_arm("no_norm", [clip], corpus.vocabulary, "smoke", steps=6)
    trajectory = train_arm(
        arm, checkpoint=tmp_path / "arm.safetensors", snapshot_steps=snapshot_plan(6)
    )
    assert len(trajectory.mel_l1) == 6 and set(trajectory.snapshots) == set(snapshot_plan(6))
    loaded = load_arm(tmp_path / "arm.safetensors", clip, corpus.vocabulary)
    assert loaded.name == "no_norm" and loaded.experiment == arm.experiment
    assert torch.equal(free_run(loaded.model, loaded.batch).mel, free_run(arm.model, arm.batch).mel)
    assert judge_arm(loaded).gap.fr_l1 == judge_arm(arm).gap.fr_l1


def test_a_checkpoint_of_another_clip_or_vocabulary_is_refused(opened, tmp_path):
    corpus, clip = opened
    arm = build_arm("healthy", [clip], corpus.vocabulary, "smoke", steps=1)
    train_arm(arm, checkpoint=tmp_path / "arm.safetensors")
    _, other = open_clip(LIBRIVOX, "0880")
    with pytest.raises(WorkbookError, match=r"trained with clips .*0930.*wanted .*0880.*--only 03"):
        load_arm(tmp_path / "arm.safetensors", other, corpus.vocabulary)
    with pytest.raises(WorkbookError, match="trained with symbols"):
        load_arm(tmp_path / "arm.safetensors", clip, Vocabulary.from_symbols(clip.phonemes))


def test_gradient_checkpointing_reaches_the_model(opened):
    corpus, clip = opened
    assert build_arm(
        "healthy", [clip], corpus.vocabulary, "smoke", gradient_checkpointing=True
    ).model.config.gradient_checkpointing


def test_open_clip_reads_the_default_a_named_one_and_passes_over_a_broken_one(tmp_path):
    assert open_clip(LIBRIVOX)[1].id.endswith("0930") and open_clip(LIBRIVOX, "0880")[
        1
    ].id.endswith("0880")
    folder = tmp_path / "voice"
    shutil.copytree(LIBRIVOX, folder)
    next(folder.glob("wavs/*0930.wav")).write_bytes(b"not a wav")
    assert not open_clip(folder)[1].id.endswith("0930")
    with pytest.raises(WorkbookError, match="0930"):
        open_clip(folder, "0930")


def test_several_clips_are_distinct_and_come_from_the_bundled_voice_where_the_folder_is_small(
    opened,
):
    _, clip = opened
    clips, vocabulary, source = several_clips(LIBRIVOX, clip, 12)
    assert len({c.id for c in clips}) == 12 and clips[0].id == clip.id and "allison" in source
    assert vocabulary.symbols == Vocabulary.arpabet().symbols
    own, _, source = several_clips(LIBRIVOX, clip, 3)
    assert len(own) == 3 and "allison" not in source


def test_clips_of_another_language_share_one_vocabulary():
    """The vocabulary of one Russian clip is smaller than that of twelve: all are encoded anew."""
    russian = ROOT / "data_samples" / "russian"
    corpus, clip = open_clip(russian)
    clips, vocabulary, source = several_clips(russian, clip, 32)
    assert len(clips) == 12 and source == "russian"
    assert vocabulary.get_vocab_size() > corpus.vocabulary.get_vocab_size()
    for member in clips:
        assert vocabulary.decode(member.phoneme_ids) == list(member.phonemes)
    arm = build_arm("healthy", clips, vocabulary, "smoke")
    assert int(arm.batch.phonemes.max()) < vocabulary.get_vocab_size()
    arm.model(arm.batch)


def test_snapshots_begin_with_the_first_step_and_end_with_the_last():
    for steps in (1, 7, 400):
        plan = snapshot_plan(steps)
        assert plan[0] == 1 and plan[-1] == steps and plan == sorted(set(plan))


def test_recipes_keep_the_frames(opened):
    corpus, clip = opened
    seed = build_arm("seed", [clip], corpus.vocabulary, "smoke")
    assert len(seed.clip.mel) == len(clip.mel) == clip.durations.sum()
    assert AudioConfig().hop_seconds == pytest.approx(256 / 22_050)


def test_clips_of_another_vocabulary_are_refused_before_they_are_misread(opened):
    _, clip = opened
    with pytest.raises(WorkbookError, match="0930: its ids were made with another vocabulary"):
        build_arm("healthy", [clip], Vocabulary.from_symbols(clip.phonemes), "smoke")


def test_the_same_sound_under_another_name_is_not_another_clip(tmp_path, opened):
    """A folder of one clip and its copy: of the 5 asked for, none may be the copy."""
    _, clip = opened
    folder = tmp_path / "twins"
    for part in ("wavs", "alignments"):
        (folder / part).mkdir(parents=True)
        source = next((LIBRIVOX / part).glob("*0930*"))
        for name in ("a", "b"):
            shutil.copy(source, folder / part / f"{name}{source.suffix}")
    (folder / "metadata.csv").write_text(
        "".join(f"{name}|{clip.text}|{clip.text}\n" for name in ("a", "b"))
    )
    clips, _, source = several_clips(folder, open_clip(folder, "a")[1], 5)
    assert (
        len(clips) == 5
        and clips[0].id == "a"
        and "b" not in [other.id for other in clips]
        and source == "allison"
    )
