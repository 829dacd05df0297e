"""Speed as ratios within one run: our train step against a plain torch.nn.Transformer, cached against uncached generation.

    python benchmarks/step.py [--profile quick] [--repeats 5]

The two sides of a ratio take turns, A B A B …, and medians are compared, so that a machine whose speed drifts treats
both alike. Results: `results/step_PROFILE.json`.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tts_core.config import AudioConfig, ModelConfig
from tts_core.model.generation import free_run, history_frames
from tts_core.model.modes import evaluating
from tts_core.speech.batch import Batch
from tts_core.training.loop import start_training
from tts_core.training.precision import choose_precision
from tts_core.training.step import train_step
from tts_core.trials.overfit import Arm, build_arm, open_clip
from tts_core.workbook.atomic import write_json
from tts_core.workbook.environment import device_name, git_commit

ROOT = Path(__file__).resolve().parents[1]


class PlainTransformer(nn.Module):
    """What a user would write at the same sizes: nn.Transformer over length-regulated phonemes and shifted mels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_dim)
        encoder = nn.TransformerEncoderLayer(config.hidden_dim, config.n_heads, config.encoder_ff_dim, config.dropout,
                                             batch_first=True, norm_first=True)
        decoder = nn.TransformerDecoderLayer(config.hidden_dim, config.n_heads, config.decoder_ff_dim, config.dropout,
                                             batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(encoder, config.n_encoder_layers, nn.LayerNorm(config.hidden_dim), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, config.n_decoder_layers, nn.LayerNorm(config.hidden_dim))
        self.mel_in, self.mel_out = nn.Linear(config.mel_dim, config.hidden_dim), nn.Linear(config.hidden_dim, config.mel_dim)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Teacher-forced mel (B, T, M) of one clip without padding."""
        memory = self.encoder(self.embedding(batch.phonemes)).repeat_interleave(batch.durations[0], dim=1)
        history = self.mel_in(torch.cat([torch.zeros_like(batch.mel[:, :1]), batch.mel[:, :-1]], dim=1))
        mask = nn.Transformer.generate_square_subsequent_mask(history.shape[1])
        return self.mel_out(self.decoder(history, memory, tgt_mask=mask, tgt_is_causal=True))


def plain_step(arm: Arm) -> Callable[[], None]:
    model = PlainTransformer(arm.experiment.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        (model(arm.batch) - arm.batch.mel).abs().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return step


def our_step(arm: Arm) -> Callable[[], None]:
    training = start_training(arm.experiment, arm.model, "cpu")
    precision = choose_precision("fp32", "cpu")
    return lambda: train_step(arm.model, training.optimizer, arm.batch, arm.experiment.loss, precision, training.scaler)


def uncached_run(arm: Arm) -> None:
    """Free-running with the whole decoder at every frame."""
    model, batch = arm.model, arm.batch
    with evaluating(model):
        memory = model.expand(model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1])
        past = memory.new_zeros(1, 0, batch.mel.shape[2])
        for t in range(batch.mel.shape[1]):
            x = model.decoder_input(history_frames(past, model.go_frame, "train"), memory[:, :t + 1])
            decoded = model.decoder(x, memory, batch.mel_mask, model._run_layer)
            past = torch.cat([past, model.mel_projection_out(decoded[:, -1:])], dim=1)


def paired_medians(a: Callable[[], object], b: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds of each, in turn, after one warm-up of both."""
    a(), b()
    seconds: dict[Callable, list[float]] = {a: [], b: []}
    for _ in range(repeats):
        for function in (a, b):
            start = time.perf_counter()
            function()
            seconds[function].append(time.perf_counter() - start)
    return statistics.median(seconds[a]), statistics.median(seconds[b])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", choices=("smoke", "quick", "seed"))
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    corpus, clip = open_clip(ROOT / "data_samples" / "librivox")
    arm = build_arm("healthy", [clip], corpus.vocabulary, arguments.profile, device="cpu")
    frames = len(clip.mel)
    ours, plain = paired_medians(our_step(arm), plain_step(arm), arguments.repeats)
    cached, uncached = paired_medians(lambda: free_run(arm.model, arm.batch), lambda: uncached_run(arm), max(1, arguments.repeats // 2))
    rows = {"train step, batch 1: ours against nn.Transformer": (frames / ours, frames / plain, plain / ours),
            f"generation of {frames} frames: cached against uncached": (frames / cached, frames / uncached, uncached / cached)}
    for name, (a, b, ratio) in rows.items():
        print(f"{name}: {a:.0f} and {b:.0f} valid frames/s, ratio {ratio:.2f}")
    print(f"real-time factor of cached generation: {cached / (frames * AudioConfig().hop_seconds):.2f}")
    write_json(ROOT / "benchmarks" / "results" / f"step_{arguments.profile}.json", {
        "rows": {name: {"frames_per_second": a, "against": b, "ratio": ratio} for name, (a, b, ratio) in rows.items()},
        "real_time_factor": cached / (frames * AudioConfig().hop_seconds),
        "provenance": {"command": f"python benchmarks/step.py --profile {arguments.profile} --repeats {arguments.repeats}",
                       "commit": git_commit(ROOT), "date": datetime.date.today().isoformat(), "device": device_name(),
                       "threads": torch.get_num_threads(), "versions": {"torch": torch.__version__}}})


if __name__ == "__main__":
    main()
