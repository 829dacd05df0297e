"""The ready subjects: in one line each, equal to what their library computes, and every part of
them is what it says.
"""

import builtins
import dataclasses
import functools
import re

import pytest
import torch
from torch.nn import functional as F

from benchmarks.planted.architecture import draw_setting
from benchmarks.planted.prosody import prosody_clips
from tests.conftest import ROOT
from tts_core.errors import WorkbookError
from tts_core.model.modes import evaluating
from tts_workbook.subject.clip_batch import gather, split
from tts_workbook.subject.isolation import without_dropout
from tts_workbook.subject.subject import SubjectError, check_subject
from tts_workbook.subject.torchaudio import tacotron2
from tts_workbook.subject.transformers import (
    IGNORED,
    fastspeech2_conformer,
    library,
    outputs_of,
    speecht5,
)

SPEECHT5 = dict(
    vocab_size=100,
    hidden_size=32,
    encoder_layers=1,
    encoder_ffn_dim=48,
    encoder_attention_heads=2,
    decoder_layers=1,
    decoder_ffn_dim=48,
    decoder_attention_heads=2,
    speech_decoder_prenet_units=24,
    speech_decoder_postnet_units=24,
    speech_decoder_postnet_layers=2,
    speaker_embedding_dim=8,
    max_speech_positions=200,
    encoder_layerdrop=0.0,
    decoder_layerdrop=0.0,
)
CONFORMER = dict(
    vocab_size=100,
    hidden_size=32,
    encoder_layers=1,
    decoder_layers=1,
    encoder_linear_units=48,
    decoder_linear_units=48,
    decoder_kernel_size=7,
    speech_decoder_postnet_layers=2,
    speech_decoder_postnet_units=24,
    duration_predictor_channels=24,
    energy_predictor_channels=24,
    pitch_predictor_channels=24,
    pitch_predictor_layers=2,
)
TACOTRON = dict(
    n_symbol=100,
    symbol_embedding_dim=24,
    encoder_embedding_dim=24,
    encoder_n_convolution=1,
    attention_rnn_dim=24,
    attention_hidden_dim=16,
    decoder_rnn_dim=24,
    prenet_dim=24,
    postnet_n_convolution=2,
    postnet_embedding_dim=16,
)
NAMES = ("speecht5", "fastspeech2_conformer", "tacotron2")
named = pytest.mark.parametrize("name", NAMES)


@functools.cache
def clips():
    """Two clips of real speech, of different lengths, with the pitch and energy of each phoneme."""
    found = prosody_clips(draw_setting(0, max_seconds=0.5).clips)
    return [found[0], next(clip for clip in found if len(clip.mel) != len(found[0].mel))]


@functools.cache
def ready(name):
    """The subject as a user writes it."""
    spoken = clips()
    ids = [torch.from_numpy(clip.phoneme_ids) for clip in spoken]
    mel = [(clip.mel + 5) / 2 for clip in spoken]
    sounds = [(clip.samples, clip.sample_rate) for clip in spoken]
    if name == "speecht5":
        return speecht5(library().SpeechT5Config(**SPEECHT5), ids, mel, audio=sounds)
    if name == "tacotron2":
        return tacotron2(TACOTRON, ids, mel, audio=sounds)
    config = library().FastSpeech2ConformerConfig(**CONFORMER)
    durations = [torch.from_numpy(clip.durations) for clip in spoken]
    pitch = [torch.from_numpy(clip.pitch) for clip in spoken]
    energy = [torch.from_numpy(clip.energy) for clip in spoken]
    return fastspeech2_conformer(config, ids, mel, durations, pitch=pitch, energy=energy)


def fresh(subject):
    torch.manual_seed(0)
    return subject.build_model()


def still(subject, measure):
    """`measure(model)` of a fresh model in eval mode, from the same random state each time."""
    model = fresh(subject)
    with evaluating(model), without_dropout(model):
        torch.manual_seed(1)
        return measure(model)


@named
def test_one_line_makes_a_subject(name):
    subject = ready(name)
    check_subject(subject)
    model = fresh(subject)
    values = subject.train_step(model, subject.make_optimizer(model), subject.batch)
    assert set(values) > {"mel", "frames", "total"}
    total = sum(value for term, value in values.items() if term != "total")
    assert values["total"] == pytest.approx(total, rel=1e-5)


@named
def test_predictions_have_the_shape_of_the_target_and_generation_its_length(name):
    subject = ready(name)
    target, lengths = subject.target_mel(subject.batch)
    assert target.shape[1] == max(lengths.tolist()) and lengths[0] != lengths[1]
    assert not torch.equal(*[target[row].mean(0) for row in (0, 1)])
    model = fresh(subject)
    for field in ("predict_mel", "predict_frames", "generate"):
        assert getattr(subject, field)(model, subject.batch).shape == target.shape
    frames, mel = (
        still(subject, lambda m, f=field: getattr(subject, f)(m, subject.batch))
        for field in ("predict_frames", "predict_mel")
    )
    assert (frames - mel).abs().max() > 1e-3  # the post-net acts
    for row in subject.infer(model, subject.batch):
        assert row.ndim == 2 and len(row) >= 1 and row.shape[1] == target.shape[2]


def test_speecht5_predicts_and_loses_what_the_library_does():
    """Labels with -100 in the padding, a number of frames that two does not divide, one voice."""
    subject = ready("speecht5")
    batch = subject.batch
    labels = batch.mel.masked_fill(~batch.mel_mask[..., None], IGNORED)
    labels = F.pad(labels, (0, 0, 0, labels.shape[1] % 2), value=IGNORED)
    own = {
        "input_ids": batch.phonemes,
        "attention_mask": batch.phoneme_mask.long(),
        "labels": labels,
        "speaker_embeddings": torch.ones(2, 8),
    }
    theirs = still(subject, lambda model: model(**own))
    mel = still(subject, lambda model: subject.predict_mel(model, batch))
    assert torch.equal(mel, theirs.spectrogram[:, : batch.mel.shape[1]])
    terms = still(subject, lambda model: subject.losses(model, batch))
    assert set(terms) == {"mel", "frames", "stop", "guided", "total"}
    assert float(terms["total"]) == pytest.approx(float(theirs.loss), rel=1e-6)
    parts = sum(float(value) for term, value in terms.items() if term != "total")
    assert parts == pytest.approx(float(theirs.loss), rel=1e-5)


def test_the_conformer_predicts_and_loses_what_the_library_does():
    """The library teacher-forces in training mode alone; nothing drops and no norm counts here."""
    subject = ready("fastspeech2_conformer")
    batch = subject.batch
    model = fresh(subject).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    with without_dropout(model), torch.no_grad():
        theirs = model(
            input_ids=batch.phonemes,
            attention_mask=batch.phoneme_mask.long(),
            spectrogram_labels=batch.mel.masked_fill(~batch.mel_mask[..., None], IGNORED),
            duration_labels=batch.durations,
            pitch_labels=batch.pitch[..., None],
            energy_labels=batch.energy[..., None],
        )
    mel = still(subject, lambda model: subject.predict_mel(model, batch))
    assert torch.equal(mel, theirs.spectrogram)
    terms = still(subject, lambda model: subject.losses(model, batch))
    assert set(terms) == {"mel", "frames", "duration", "pitch", "energy", "total"}
    assert float(terms["total"]) == pytest.approx(float(theirs.loss), rel=1e-6)
    parts = sum(float(value) for term, value in terms.items() if term != "total")
    assert parts == pytest.approx(float(theirs.loss), rel=1e-5)


def test_tacotron2_predicts_what_the_library_does_for_a_clip_alone():
    subject = ready("tacotron2")
    alone = split(subject.batch)[0]
    arguments = (
        alone.phonemes,
        alone.phoneme_lengths,
        alone.mel.transpose(1, 2),
        alone.mel_lengths,
    )
    frames, mel, gate, _ = still(subject, lambda model: model(*arguments))
    own = still(subject, lambda model: subject.predict_frames(model, alone))
    assert torch.allclose(own, frames.transpose(1, 2), atol=1e-6)
    own = still(subject, lambda model: subject.predict_mel(model, alone))
    assert torch.allclose(own, mel.transpose(1, 2), atol=1e-6)
    stop = still(subject, lambda model: subject.stop(model, alone))
    assert torch.allclose(stop, gate.sigmoid(), atol=1e-6)


@named
def test_padding_and_copies_are_what_they_claim(name):
    subject = ready(name)
    target, lengths = subject.target_mel(subject.batch)
    padded, padded_lengths = subject.target_mel(subject.pad(subject.batch, 7))
    assert padded.shape[1] == target.shape[1] + 7 and torch.equal(lengths, padded_lengths)
    for row, length in enumerate(lengths):
        assert torch.equal(padded[row, :length], target[row, :length])
    model = fresh(subject)
    assert subject.predict_mel(model, subject.pad(subject.batch, 7)).shape == padded.shape
    copies, _ = subject.target_mel(subject.duplicate(subject.batch, 3))
    assert torch.equal(copies, torch.cat([target] * 3))
    one = still(subject, lambda model: subject.losses(model, subject.batch))
    three = still(subject, lambda model: subject.losses(model, subject.duplicate(subject.batch, 3)))
    assert float(three["total"]) == pytest.approx(float(one["total"]), rel=1e-3)


def test_a_clip_beside_more_padding_hears_what_it_hears_beside_a_longer_clip():
    """FastSpeech2Conformer's decoder gets zeros and its mask for the frames that a clip lacks."""
    subject = ready("fastspeech2_conformer")
    short, long = sorted(split(subject.batch), key=lambda part: part.mel.shape[1])
    both = gather((*short.clips, *long.clips))
    n = len(short.clips[0].mel)

    def heard(batch):
        def measure(model):
            heard = []
            model.decoder.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[1]))
            model.decoder.pos_enc.register_forward_pre_hook(lambda _, x: heard.append(x[0]))
            subject.predict_mel(model, batch)
            return heard

        return still(subject, measure)

    mask, hidden = heard(subject.pad(short, both.mel.shape[1] - n))
    mask_beside, beside = heard(both)
    assert torch.equal(mask[0], mask_beside[0]) and int(mask[0].sum()) == n
    assert torch.equal(hidden[0, n:], beside[0, n:]) and not hidden[0, n:].any()


@named
def test_trimmed_and_shuffled_batches_carry_what_they_need(name):
    subject = ready(name)
    model = fresh(subject)
    target, lengths = subject.target_mel(subject.batch)
    trimmed = subject.trim(subject.batch, 4, 9)
    cut, shorter = subject.target_mel(trimmed)
    assert torch.equal(shorter, lengths - 13)
    assert torch.equal(cut[0, : shorter[0]], target[0, 4 : lengths[0] - 9])
    assert subject.predict_mel(model, trimmed).shape == cut.shape
    shuffled = subject.shuffle_text(subject.batch, torch.Generator().manual_seed(0))
    assert not torch.equal(shuffled.phonemes, subject.batch.phonemes)
    assert torch.equal(shuffled.phonemes.sort(1).values, subject.batch.phonemes.sort(1).values)
    moved = still(subject, lambda model: subject.predict_mel(model, shuffled))
    assert not torch.equal(moved, still(subject, lambda m: subject.predict_mel(m, subject.batch)))
    for clip in trimmed.clips:
        assert int(clip.durations.sum()) == len(clip.mel)
        if name == "fastspeech2_conformer":
            assert len(clip.pitch) == len(clip.energy) == len(clip.phoneme_ids)


@pytest.mark.parametrize("name", ("speecht5", "tacotron2"))
@pytest.mark.parametrize("t", (0, 1, 2, 5))
def test_the_generating_code_continues_a_true_history_as_teacher_forcing_does(name, t):
    """Without the pre-net's dropout, whose draws are others in either path."""
    subject = ready(name)
    model = quiet_prenet(fresh(subject))
    with evaluating(model), without_dropout(model):
        history = subject.target_mel(subject.batch)[0][:, :t]
        frame = subject.continue_from(model, subject.batch, history)
        wanted = subject.predict_frames(model, subject.batch)[:, t]
    assert torch.allclose(frame, wanted, atol=1e-5)


def quiet_prenet(model):
    """The pre-net without its dropout, where the library has no switch for it."""
    if hasattr(model, "speecht5"):
        model.speecht5.decoder.prenet._consistent_dropout = lambda hidden, p: hidden
    return model


def test_speecht5_feeds_itself_two_frames_a_step():
    """What `generate` makes is what `continue_from` says of it, frame by frame, before the
    post-net.
    """
    subject = ready("speecht5")
    model = quiet_prenet(fresh(subject))
    with evaluating(model), outputs_of(model.speech_decoder_postnet.feat_out) as steps:
        subject.generate(model, subject.batch)
    frames = torch.cat([step.view(2, 2, -1) for step in steps], dim=1)
    assert 0 <= frames.shape[1] - subject.batch.mel.shape[1] <= 1
    for t in (0, 1, 6, 11):
        found = subject.continue_from(model, subject.batch, frames[:, :t])
        assert torch.allclose(found, frames[:, t], atol=1e-5)


def test_the_conformer_generates_with_the_true_durations_and_its_own_pitch():
    subject = ready("fastspeech2_conformer")
    mel = still(subject, lambda model: subject.generate(model, subject.batch))
    for row, clip in enumerate(subject.batch.clips):
        length = len(clip.mel)
        assert mel[row, :length].abs().sum(dim=1).min() > 0 and not mel[row, length:].any()
    assert not torch.allclose(
        mel, still(subject, lambda model: subject.predict_mel(model, subject.batch)), atol=1e-3
    )
    assert subject.durations(subject.batch) == [clip.durations.tolist() for clip in clips()]


@pytest.mark.parametrize("name", ("speecht5", "tacotron2"))
def test_stop_is_a_probability_for_each_frame(name):
    subject = ready(name)
    stop = still(subject, lambda model: subject.stop(model, subject.batch))
    assert stop.shape == subject.batch.mel.shape[:2]
    assert float(stop.min()) > 0.0 and float(stop.max()) < 1.0


def test_what_is_not_given_is_not_supplied():
    """Statistics and a vocoder are the user's; audio is there where it was given."""
    for name in NAMES:
        subject = ready(name)
        assert not subject.has("features") and not subject.has("vocode")
        assert subject.has("durations") == (name == "fastspeech2_conformer")
        assert subject.has("audio") == (name != "fastspeech2_conformer")
    samples, rate = ready("speecht5").audio(ready("speecht5").batch)[0]
    assert rate == clips()[0].sample_rate and len(samples) == len(clips()[0].samples)


def test_a_model_brings_its_weights_as_checkpoint():
    model = library().SpeechT5ForTextToSpeech(library().SpeechT5Config(**SPEECHT5))
    ids, mel = [torch.arange(1, 9)], [torch.randn(20, 80)]
    voice = torch.linspace(-1, 1, 8)
    subject = speecht5(model, ids, mel, speaker=voice)
    other = fresh(subject)
    other.load_state_dict(subject.checkpoint, strict=True)
    for name, weight in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)
    with outputs_of(other.speecht5.decoder.prenet) as heard:
        subject.predict_mel(other, subject.batch)
    elsewhere = dataclasses.replace(speecht5(model, ids, mel), checkpoint=None)
    with outputs_of(other.speecht5.decoder.prenet) as heard_of_ones:
        elsewhere.predict_mel(other, subject.batch)
    assert not torch.allclose(heard[0], heard_of_ones[0])


def test_what_does_not_fit_is_told():
    config = library().SpeechT5Config(**SPEECHT5)
    with pytest.raises(SubjectError, match=r"ids \(N,\) and mel \(T, M\)"):
        speecht5(config, [torch.zeros(1, 4, dtype=torch.long)], [torch.zeros(9, 80)])
    with pytest.raises(WorkbookError, match="wanted: a FastSpeech2ConformerModel"):
        fastspeech2_conformer(config, [], [], [], pitch=[], energy=[])
    conformer = library().FastSpeech2ConformerConfig(**CONFORMER)
    ids, mel, durations = [torch.arange(1, 4)], [torch.zeros(9, 80)], [torch.tensor([3, 3, 3])]
    with pytest.raises(SubjectError, match="one pitch for each id"):
        tone = [torch.zeros(2)]
        fastspeech2_conformer(conformer, ids, mel, durations, pitch=tone, energy=tone)
    with pytest.raises(SubjectError, match="3 ids and 2 durations"):
        fastspeech2_conformer(conformer, ids, mel, [torch.ones(2)], pitch=ids, energy=ids)


def test_a_missing_library_is_told_with_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(WorkbookError, match=r"pip install '\.\[transformers\]'"):
        library()


def test_the_page_shows_what_runs():
    """The blocks of docs/SUBJECTS.md, on the clips of these tests."""
    page = (ROOT / "docs" / "SUBJECTS.md").read_text("utf-8")
    lines, more = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    spoken = clips()
    given = {
        "ids": [torch.from_numpy(clip.phoneme_ids) for clip in spoken],
        "mel": [clip.mel for clip in spoken],
        "durations": [torch.from_numpy(clip.durations) for clip in spoken],
        "pitch": [torch.from_numpy(clip.pitch) for clip in spoken],
        "energy": [torch.from_numpy(clip.energy) for clip in spoken],
    }
    configs = [None, library().SpeechT5Config(**SPEECHT5), None]
    configs[2] = library().FastSpeech2ConformerConfig(**CONFORMER)
    imports, one_lines = lines.split("\n\n")
    for config, line in zip(configs, one_lines.strip().splitlines(), strict=True):
        shown = {**given, "config": config}
        exec(f"{imports}\n{line}", shown)
        assert shown["subject"].predict_frames is not None
    shown = {"subject": tacotron2(TACOTRON, given["ids"], given["mel"]), "my_vocoder": len}
    exec(more, shown)
    check_subject(shown["subject"])
    assert shown["subject"].vocode is len and shown["subject"].memory == "encoder"
