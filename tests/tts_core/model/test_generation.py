"""Generation: cached equals uncached, and its layout equals training's unless told otherwise."""

import pytest
import torch

from tests.conftest import make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.model.generation import decode_frames, free_run, history_frames, infer
from tts_core.model.modes import evaluating


def uncached(model, batch, layout, true_history):
    """Free-running by the whole decoder at every frame: the slow oracle."""
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1]
        )
        truth = model.normaliser.normalise(batch.mel)
        past = truth[:, :0]
        for t in range(batch.mel.shape[1]):
            history = history_frames(truth[:, :t] if true_history else past, model.go_frame, layout)
            x = model.decoder_input(history, memory[:, : t + 1])
            decoded = model.decoder(x, memory, batch.mel_mask, model._run_layer)
            past = torch.cat([past, model.mel_projection_out(decoded[:, -1:])], dim=1)
        return model.normaliser.denormalise(past)


@pytest.mark.parametrize("true_history", (False, True))
@pytest.mark.parametrize("layout", ("train", "seed"))
@pytest.mark.parametrize("adds_memory", (False, True))
def test_cached_equals_uncached(batch, layout, true_history, adds_memory):
    model = make_model(make_experiment(decoder_adds_memory=adds_memory, n_decoder_layers=2), batch)
    generated = free_run(model, batch, layout=layout, true_history=true_history).mel
    expected = uncached(model, batch, layout, true_history)
    torch.testing.assert_close(
        generated[batch.mel_mask], expected[batch.mel_mask], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ("healthy", "seed"))
def test_generation_on_the_true_history_equals_teacher_forcing_in_the_training_layout_only(
    batch, name
):
    model = make_model(make_experiment(name), batch)
    with evaluating(model):
        teacher_forced = model(batch).mel[batch.mel_mask]
    torch.testing.assert_close(
        free_run(model, batch, layout="train", true_history=True).mel[batch.mel_mask],
        teacher_forced,
        rtol=1e-4,
        atol=1e-4,
    )
    seed_layout = free_run(model, batch, layout="seed", true_history=True).mel[batch.mel_mask]
    assert (seed_layout - teacher_forced).abs().max() > 0.01


def test_seed_layout_drops_the_go_frame_and_repeats_the_last():
    past, go = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([9.0])
    assert history_frames(past, go, "train").flatten().tolist() == [9, 1, 2, 3]
    assert history_frames(past, go, "seed").flatten().tolist() == [1, 2, 3, 3]
    assert history_frames(past[:, :0], go, "seed").flatten().tolist() == [9]


def test_the_preset_decides_the_layout_unless_overridden(batch):
    model = make_model(make_experiment("seed"), batch)
    assert torch.equal(free_run(model, batch).mel, free_run(model, batch, layout="seed").mel)
    assert not torch.equal(free_run(model, batch).mel, free_run(model, batch, layout="train").mel)
    with pytest.raises(WorkbookError, match="layout 'sead' is unknown; use one of train, seed"):
        free_run(model, batch, layout="sead")


def test_full_inference_needs_phonemes_alone_and_the_stop_head_ends_it(batch):
    model = make_model(make_experiment(), batch)
    with torch.no_grad():
        model.duration_predictor.output.weight.zero_()
        model.duration_predictor.output.bias.fill_(float(torch.tensor(4.0).log1p()))
        model.stop_token_predictor.weight.zero_()
        model.stop_token_predictor.bias.fill_(-5.0)
    never = infer(model, batch.phonemes, batch.phoneme_lengths)
    assert never.lengths.tolist() == [12, 16] and never.mel.shape == (2, 16, 80)
    with torch.no_grad():
        model.stop_token_predictor.bias.fill_(5.0)
    assert infer(model, batch.phonemes, batch.phoneme_lengths).lengths.tolist() == [1, 1]


def test_absurd_predicted_durations_are_an_error_not_an_allocation(batch):
    model = make_model(make_experiment(), batch)
    with torch.no_grad():
        model.duration_predictor.output.bias.fill_(12.0)
    with pytest.raises(
        WorkbookError, match=r"predicted durations add up to .* more than max_frames = 4000"
    ):
        infer(model, batch.phonemes, batch.phoneme_lengths)


def test_generation_never_reads_the_target(batch):
    """Free-running output is a function of text and durations: another recording changes
    nothing.
    """
    model = make_model(make_experiment(), batch)
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1]
        )
        mel, _ = decode_frames(model, memory, batch.mel_mask)
    torch.testing.assert_close(free_run(model, batch).mel, mel, rtol=0, atol=0)
