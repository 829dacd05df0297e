"""A trial's name is the hash of all that decides it, and two trials that differ in one switch share
all the rest.
"""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import ROOT
from tests.tts_workbook.trials.trial_builders import SHORT_CLIP, short_corpus, smoke_trial
from tts_core.config import AudioConfig
from tts_core.errors import WorkbookError
from tts_core.speech.dataset import load_corpus
from tts_core.training.state import start_training
from tts_workbook.trials.run_preset_trial import batch_source, build_trial_model
from tts_workbook.trials.study_arms import BREAKS, REPAIRS
from tts_workbook.trials.trial import ClipReference, load_clips, make_trial, trial_from_dict

OTHERS = ("sorry-youre-having-problems", "confbridge-has-joined", "followme-no-recording")


@pytest.fixture(scope="module")
def corpus():
    return short_corpus()


@pytest.fixture(scope="module")
def several():
    return short_corpus(SHORT_CLIP, *OTHERS)


def test_the_digest_is_the_same_in_another_process(corpus):
    script = (
        "from tests.tts_workbook.trials.trial_builders import short_corpus, smoke_trial\n"
        "print(smoke_trial(short_corpus(), seed=3).digest)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"},
    ).stdout
    assert printed.strip() == smoke_trial(corpus, seed=3).digest


def test_the_digest_does_not_know_where_the_clips_lie(corpus, tmp_path):
    source = ROOT / "data_samples" / "allison"
    for part in ("wavs", "alignments"):
        (tmp_path / part).mkdir()
        for file in (source / part).glob(f"{SHORT_CLIP}.*"):
            shutil.copy(file, tmp_path / part)
    rows = [
        row
        for row in (source / "metadata.csv").read_text().splitlines()
        if row.startswith(SHORT_CLIP)
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    elsewhere = smoke_trial(load_corpus(tmp_path, AudioConfig()))
    assert elsewhere.clips[0].root != smoke_trial(corpus).clips[0].root
    assert elsewhere.digest == smoke_trial(corpus).digest


def test_every_field_but_the_name_changes_the_digest(several):
    base = smoke_trial(several, batch_size=2)
    others = [
        smoke_trial(several, batch_size=2, **changed)
        for changed in (
            {"seed": 1},
            {"lr": 0.5},
            {"steps": 4},
            {"preset_name": "seed"},
            {"copies": 2},
            {"listen": True},
            *(
                {"changes": {field: value}}
                for field, value in (
                    ("optimizer.weight_decay", 0.0),
                    ("optimizer.clip_norm", None),
                    ("model.dropout", 0.1),
                    ("model.memory_norm", False),
                    ("model.history_dropout", 0.5),
                    ("fit.precision", "bf16"),
                    ("loss.stop_weight", 0.2),
                    ("audio", "seed"),
                )
            ),
        )
    ]
    clip = several.clips[0]
    another = dataclasses.replace(clip, sound="0" * 12)
    jittered = dataclasses.replace(clip, durations=torch.as_tensor(clip.durations).flip(0).numpy())
    for changed in (another, jittered):
        others.append(
            make_trial(
                [changed, *several.clips[1:]], several.vocabulary, base.experiment, batch_size=2
            )
        )
    others += [
        smoke_trial(several, batch_size=3),
        smoke_trial(several),
        *(dataclasses.replace(base, clips=clips) for clips in (base.clips[1:], base.clips[::-1])),
    ]
    others += [dataclasses.replace(base, symbols=base.symbols[::-1])]
    assert len({trial.digest for trial in (base, *others)}) == len(others) + 1
    assert dataclasses.replace(base, name="another").digest == base.digest


def test_a_trial_survives_json_and_refuses_what_it_does_not_know(corpus):
    trial = smoke_trial(corpus, copies=2, name="twice")
    stored = json.loads(json.dumps(trial.to_dict()))
    assert trial_from_dict(stored) == trial and trial_from_dict(stored).digest == trial.digest
    with pytest.raises(WorkbookError, match="unknown key colour"):
        trial_from_dict({**stored, "colour": "blue"})


def test_impossible_trials_are_refused(corpus):
    trial = smoke_trial(corpus)
    for options, said in (
        ({"copies": 0}, "copies = 0"),
        ({"batch_size": 2}, "only 1 clips"),
        ({"batch_size": 0}, "batch_size = 0"),
    ):
        with pytest.raises(WorkbookError, match=said):
            dataclasses.replace(trial, **options)
    with pytest.raises(WorkbookError, match="at least one clip"):
        dataclasses.replace(trial, clips=())
    bigger = dataclasses.replace(
        trial.experiment, model=dataclasses.replace(trial.experiment.model, vocab_size=99)
    )
    with pytest.raises(WorkbookError, match="vocab_size = 99"):
        make_trial(corpus.clips, corpus.vocabulary, bigger)


def test_a_clip_that_changed_since_is_not_trained_on(corpus):
    trial = smoke_trial(corpus)
    clips, vocabulary = load_clips(trial)
    assert (
        torch.equal(clips[0].mel, corpus.clips[0].mel)
        and tuple(vocabulary.symbols) == trial.symbols
    )
    changed = dataclasses.replace(
        trial, clips=(dataclasses.replace(trial.clips[0], content="f" * 12),)
    )
    with pytest.raises(
        WorkbookError,
        match=f"{SHORT_CLIP} is not what trial .* its sound, text or alignment changed",
    ):
        load_clips(changed)


def copy_of(corpus, folder, change):
    """The folder of `corpus` with SHORT_CLIP alone, its 16-bit integers changed."""
    clip = corpus.clips[0]
    (folder / "wavs").mkdir()
    (folder / "alignments").mkdir()
    shutil.copy(
        clip.path.parent.parent / "alignments" / f"{clip.id}.TextGrid", folder / "alignments"
    )
    integers, rate = soundfile.read(clip.path, dtype="int16")
    soundfile.write(folder / "wavs" / f"{clip.id}.wav", change(integers.copy()), rate)
    (folder / "metadata.csv").write_text(f"{clip.id}|{clip.text}\n")
    return load_corpus(folder, AudioConfig()).clips[0]


def test_a_clip_is_known_by_its_recording_not_by_the_last_bits_of_resampling(corpus, tmp_path):
    clip = corpus.clips[0]
    trial = smoke_trial(corpus)
    resampled_elsewhere = dataclasses.replace(
        clip, samples=np.nextafter(clip.samples, np.float32(2.0))
    )
    assert ClipReference.of(resampled_elsewhere) == trial.clips[0]
    for name in ("same", "other"):
        (tmp_path / name).mkdir()
    same = copy_of(corpus, tmp_path / "same", lambda integers: integers)
    assert same.sound == clip.sound and ClipReference.of(same).content == trial.clips[0].content

    def one_step_louder(integers):
        integers[1000] += 1
        return integers

    copy_of(corpus, tmp_path / "other", one_step_louder)
    moved = dataclasses.replace(
        trial, clips=(dataclasses.replace(trial.clips[0], root=str(tmp_path / "other")),)
    )
    with pytest.raises(WorkbookError, match="its sound, text or alignment changed"):
        load_clips(moved)


@pytest.mark.parametrize("fault", ["changed", "broken", "gone"])
def test_a_clip_that_was_corrected_is_read_again_in_the_same_process(several, tmp_path, fault):
    source = several.clips[0].path.parent.parent
    clips = several.clips[:2]
    for part, ending in (("wavs", "wav"), ("alignments", "TextGrid")):
        (tmp_path / part).mkdir()
        for clip in clips:
            shutil.copy(source / part / f"{clip.id}.{ending}", tmp_path / part)
    (tmp_path / "metadata.csv").write_text("".join(f"{clip.id}|{clip.text}\n" for clip in clips))
    trial = smoke_trial(load_corpus(tmp_path, AudioConfig()))
    wav = tmp_path / "wavs" / f"{trial.clips[0].id}.wav"
    content = wav.read_bytes()
    if fault == "changed":
        wav.write_bytes(content[:-2] + bytes(byte ^ 1 for byte in content[-2:]))
    elif fault == "broken":
        wav.write_bytes(b"no sound")
    else:
        wav.unlink()
    with pytest.raises(WorkbookError, match=f"clip {trial.clips[0].id} is not what trial"):
        load_clips(trial)
    wav.write_bytes(content)
    assert [ClipReference.of(clip) for clip in load_clips(trial)[0]] == list(trial.clips)


# What a change has to touch at step 0; everything else with the same name and shape starts equal.
TOUCHED = {
    "model.duration_initialisation": {
        "duration_predictor.output.weight",
        "duration_predictor.output.bias",
    },
    "model.go_frame": {"raw_go_frame"},
    "model.standardise_targets": {"normaliser.mean", "normaliser.std"},
}
PAIRS = [("seed", name, changes) for name, changes in REPAIRS.items()]
PAIRS += [("healthy", name, changes) for name, changes in BREAKS.items()]


@pytest.mark.parametrize(
    "preset_name, name, changes", PAIRS, ids=[f"{pair[0]}-{pair[1]}" for pair in PAIRS]
)
def test_a_pair_shares_every_initial_tensor_that_both_have(corpus, preset_name, name, changes):
    one, other = (
        smoke_trial(corpus, preset_name, seed=5),
        smoke_trial(corpus, preset_name, seed=5, changes=changes),
    )
    states = [build_trial_model(trial, load_clips(trial)[0]).state_dict() for trial in (one, other)]
    shared = [
        key
        for key in states[0]
        if key in states[1] and states[0][key].shape == states[1][key].shape
    ]
    different = {key for key in shared if not torch.equal(states[0][key], states[1][key])}
    allowed = (
        TOUCHED["model.standardise_targets"]
        if (preset_name, name) == ("healthy", "mel_recipe")
        else set()
    )
    assert different == {key for field in changes for key in TOUCHED.get(field, ())} | allowed
    missing = {key for state in states for key in state} - set(shared)
    own = {"mel_input": "mel_projection_in.", "memory_norm": "encoder.memory_norm."}
    assert len(shared) > 50 and bool(missing) == (name in own)
    assert all(key.startswith(own[name]) for key in missing)


def test_another_seed_starts_elsewhere(corpus):
    states = [
        build_trial_model(smoke_trial(corpus, seed=seed), corpus.clips).state_dict()
        for seed in (0, 1)
    ]
    assert not torch.equal(states[0]["text_embedding.weight"], states[1]["text_embedding.weight"])


def test_pairs_share_the_dropout_stream_and_seeds_do_not(corpus):
    def stream(**options):
        trial = smoke_trial(corpus, **options)
        return start_training(trial.experiment, build_trial_model(trial, corpus.clips)).rng_state

    assert torch.equal(
        stream(seed=2), stream(seed=2, changes={"model.memory_norm": False, "optimizer.lr": 1.0})
    )
    assert not torch.equal(stream(seed=2), stream(seed=3))


def test_data_order_covers_every_clip_in_every_epoch_and_depends_on_the_seed_alone(several):
    def order(**options):
        source = batch_source(smoke_trial(several, batch_size=2, **options), several.clips)
        return [tuple(name for batch in source(step) for name in batch.ids) for step in range(12)]

    mine = order(seed=4)
    for epoch in range(6):
        assert sorted(mine[2 * epoch] + mine[2 * epoch + 1]) == sorted(
            clip.id for clip in several.clips
        )
    assert len({frozenset(ids) for ids in mine}) > 2  # drawn anew in every epoch
    assert (
        order(seed=4, preset_name="seed", changes={"model.dropout": 0.2}) == mine != order(seed=5)
    )
    assert [ids[:2] for ids in order(seed=4, copies=2)] == mine


def test_without_a_batch_size_every_step_sees_all_clips_as_often_as_asked(several):
    batch = batch_source(smoke_trial(several, copies=3), several.clips)
    assert len(batch.ids) == 12 and sorted(set(batch.ids)) == sorted(
        clip.id for clip in several.clips
    )
