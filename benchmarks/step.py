"""Speed and memory of one train step and of generation, as ratios within one run.

    python benchmarks/step.py [--profiles quick,seed] [--batches 1,32] [--repeats 3] [--device cpu]
    [--threads 2] [--parts steps,generation]

Contenders take turns, A B C A B C …, and medians are compared. A step is forward, backward and
optimiser over real prompts (data_samples/allison); "of the peak" is the counted work
(benchmarks/work.py) over its time and over the best square matrix product of the same type in the
same run. Results: `results/step.json`, one row for each profile and batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a script has its own folder there, not the repository

from benchmarks.contenders import (
    N_PARTS,
    Contender,
    Step,
    our_forward,
    our_step,
    plain_step,
    tacotron_step,
)
from benchmarks.timing import bandwidth, interleaved_medians, matmul_peak, provenance, saved_bytes
from benchmarks.work import work
from tts_core.atomic_files import read_json, write_json
from tts_core.config import AudioConfig, ExperimentConfig, ModelConfig, preset
from tts_core.model.generation import free_run, history_frames
from tts_core.model.modes import evaluating
from tts_core.model.tts import TTSModel, build_model
from tts_core.speech.batch import Batch, collate, duplicate
from tts_core.speech.dataset import Corpus, load_corpus
from tts_core.training.corpus.sampler import BatchPlan

RESULT = ROOT / "benchmarks" / "results" / "step.json"
N_GENERATED = 600  # frames of the generation that is measured
WRITTEN = Contender("nn.Transformer").label  # one padded batch: what a user would write
SIDE_BY_SIDE = 8  # clips generated at once: the weights are read once a frame for all of them


def clips_of(corpus: Corpus, n_clips: int) -> list:
    """The clip nearest to the findings' length where one is asked for; else as many of the corpus
    in its own order, round and round.
    """
    if n_clips == 1:
        return [min(corpus.clips, key=lambda clip: abs(len(clip.mel) - 258))]
    return [corpus.clips[index % len(corpus.clips)] for index in range(n_clips)]


def micro_batches(clips: list, n_parts: int, device: str) -> list[Batch]:
    """The same optimiser step in parts of like lengths, as training on a corpus takes it
    (`--micro-batches`): equal but for rounding.
    """
    plan = BatchPlan([len(clip.mel) for clip in clips], len(clips))
    batches = []
    for part in plan.parts_of(0, 0, 1, n_parts):
        batches.append(collate([clips[index] for index in part]).to(device))
    return batches


def counted(config: ModelConfig, n_parameters: int, batches: list[Batch]) -> float:
    """Operations of one step over `batches`."""
    total = 0.0
    for batch in batches:
        n_phonemes, n_frames = batch.phonemes.shape[1], batch.mel.shape[1]
        total += work(config, n_parameters, len(batch.mel), n_phonemes, n_frames).operations
    return total


def fresh(corpus: Corpus, experiment: ExperimentConfig, device: str) -> TTSModel:
    mels = [clip.mel for clip in corpus.clips]
    return build_model(experiment.model, experiment.audio, mels, experiment.fit.seed).to(device)


def experiment_of(corpus: Corpus, profile: str, **model_changes) -> ExperimentConfig:
    """The sound model at the profile's size without dropout, which peers spend their time on
    differently.
    """
    experiment = preset("healthy", corpus.vocabulary.get_vocab_size(), profile)
    model = dataclasses.replace(experiment.model, dropout=0.0, **model_changes)
    return dataclasses.replace(experiment, model=model)


def measure_step(
    corpus: Corpus,
    profile: str,
    n_clips: int,
    repeats: int,
    device: str,
    types: list[str],
    peaks: dict[str, float],
) -> dict:
    """One row: valid frames per second of every contender, share of the peak, activation memory."""
    clips = clips_of(corpus, n_clips)
    batch = collate(clips).to(device)
    own = experiment_of(corpus, profile)
    arms = {Contender("ours", name): [batch] for name in types}
    if n_clips > 1:
        parts = micro_batches(clips, N_PARTS, device)
        arms |= {Contender("ours", name, N_PARTS): parts for name in types}
    seconds = interleaved_medians(_steps(corpus, profile, batch, arms), repeats)
    model = fresh(corpus, own, device)
    n_parameters = sum(p.numel() for p in model.parameters())
    checkpointed = experiment_of(corpus, profile, gradient_checkpointing=True)
    checkpointed_model = fresh(corpus, checkpointed, device)
    operations = {arm: counted(own.model, n_parameters, arms[arm]) for arm in arms}
    return {
        "profile": profile,
        "clips": n_clips,
        "valid_frames": batch.n_frames,
        "padded_frames": batch.mel.shape[0] * batch.mel.shape[1],
        "parameters": n_parameters,
        "operations": {arm.label: value for arm, value in operations.items()},
        "parameter_bytes": work(own.model, n_parameters, 1, 1, 1).parameter_bytes,
        "frames_per_second": {name: batch.n_frames / value for name, value in seconds.items()},
        "ratio_to_nn_transformer": {
            name: seconds[WRITTEN] / value for name, value in seconds.items()
        },
        "ratio_like_for_like": {
            arm.label: seconds[arm.counterpart.label] / seconds[arm.label] for arm in arms
        },
        "share_of_peak": {
            arm.label: value / seconds[arm.label] / peaks[arm.precision]
            for arm, value in operations.items()
        },
        "activation_bytes": {
            "plain": saved_bytes(our_forward(own, model, batch)),
            "checkpointed": saved_bytes(our_forward(checkpointed, checkpointed_model, batch)),
        },
    }


def _steps(
    corpus: Corpus, profile: str, batch: Batch, arms: dict[Contender, list[Batch]]
) -> dict[str, Step]:
    """The step of every contender by its label: ours and its counterparts over the batches of
    `arms`, and those that take one padded `batch`.
    """
    device, own = str(batch.mel.device), experiment_of(corpus, profile)
    steps: dict[str, Step] = {}
    for arm, batches in arms.items():
        steps[arm.label] = our_step(own, fresh(corpus, own, device), batches, arm.precision)
    for arm, batches in arms.items():
        steps[arm.counterpart.label] = plain_step(own.model, batches, arm.precision)
    if batch.mel.device.type != "cpu" and len(batch.ids) == 1:
        # on CPUs it takes a minute to compile and is slower
        for arm in arms:
            model = fresh(corpus, own, device)
            compiled = dataclasses.replace(arm, compiled=True)
            steps[compiled.label] = our_step(own, model, [batch], arm.precision, compiled=True)
    by_phoneme = experiment_of(corpus, profile, memory_positions=False)
    label = Contender("ours", keys_by_phoneme=True).label
    steps[label] = our_step(by_phoneme, fresh(corpus, by_phoneme, device), [batch])
    if profile == "seed":
        steps[Contender("Tacotron 2").label] = tacotron_step(own.model.vocab_size, batch)
    return steps


def uncached_run(model: TTSModel, batch: Batch) -> None:
    """Free-running with the whole decoder at every frame."""
    with evaluating(model):
        memory = model.expand(
            model.encode(batch.phonemes, batch.phoneme_mask), batch.durations, batch.mel.shape[1]
        )
        past = memory.new_zeros(len(memory), 0, batch.mel.shape[2])
        for t in range(batch.mel.shape[1]):
            x = model.decoder_input(
                history_frames(past, model.go_frame, "train"), memory[:, : t + 1]
            )
            decoded = model.decoder(x, memory, batch.mel_mask, model._run_layer)
            past = torch.cat([past, model.mel_projection_out(decoded[:, -1:])], dim=1)


def long_batch(corpus: Corpus, n_frames: int) -> Batch:
    """One made-up clip of `n_frames`: the phonemes and durations of the corpus in a row."""
    phonemes = torch.cat([torch.from_numpy(clip.phoneme_ids) for clip in corpus.clips])
    durations = torch.cat([torch.from_numpy(clip.durations) for clip in corpus.clips])
    kept = int((durations.cumsum(0) < n_frames).sum())
    rest = n_frames - int(durations[:kept].sum())
    durations = torch.cat([durations[:kept], torch.tensor([rest])])
    return Batch(
        phonemes[None, : kept + 1],
        torch.tensor([kept + 1]),
        durations[None],
        torch.cat([clip.mel for clip in corpus.clips])[None, :n_frames],
        torch.tensor([n_frames]),
        ("made up",),
        AudioConfig().silence,
    )


def measure_generation(corpus: Corpus, profile: str, device: str) -> dict:
    """Cached against uncached generation of N_GENERATED frames, and the real-time factor: of one
    clip, and of several side by side.
    """
    batch = long_batch(corpus, N_GENERATED).to(device)
    experiment = experiment_of(corpus, profile)
    model = fresh(corpus, experiment, device)
    several = duplicate(batch, SIDE_BY_SIDE)
    seconds = interleaved_medians({"uncached": lambda: uncached_run(model, batch)}, 1)
    seconds |= interleaved_medians(
        {
            "cached": lambda: free_run(model, batch),
            "side by side": lambda: free_run(model, several),
        },
        5,
    )
    speech = N_GENERATED * AudioConfig().hop_seconds
    return {
        "profile": profile,
        "frames": N_GENERATED,
        "seconds": seconds,
        "ratio": seconds["uncached"] / seconds["cached"],
        "real_time_factor": seconds["cached"] / speech,
        "side_by_side": SIDE_BY_SIDE,
        "real_time_factor_side_by_side": seconds["side by side"] / (SIDE_BY_SIDE * speech),
    }


def bf16_counts(device: str, peaks: dict[str, float]) -> bool:
    """Whether bf16 products are faster than fp32's on this device: elsewhere autocast only costs
    time.
    """
    return device != "cpu" or peaks["bf16"] > peaks["fp32"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", default="quick,seed")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument(
        "--parts",
        default="steps,generation",
        help="what to measure; the rest of the result stays as it is",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    corpus = load_corpus(ROOT / "data_samples" / "allison", AudioConfig())
    found: dict[str, Any] = {}
    if "steps" in options.parts:
        found |= steps_part(options, corpus)
    if "generation" in options.parts:
        found |= generation_part(options, corpus)
    if options.device == "cpu":
        print("CUDA: not measured, there is no such device")
    before = read_json(options.out) if options.out.exists() else {}
    write_json(options.out, {**before, options.device: {**before.get(options.device, {}), **found}})


def steps_part(options: argparse.Namespace, corpus: Corpus) -> dict[str, Any]:
    """Peaks, and a row for every profile and batch."""
    peaks = {
        "fp32": matmul_peak(torch.float32, options.device),
        "bf16": matmul_peak(torch.bfloat16, options.device),
    }
    types = ["fp32", "bf16"] if bf16_counts(options.device, peaks) else ["fp32"]
    told = ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items())
    print(f"matmul peak: {told}", flush=True)
    found: dict[str, Any] = {"matmul_peak": peaks, "bandwidth": bandwidth(options.device)}
    rows = []
    sizes = map(int, options.batches.split(","))
    for profile, n_clips in itertools.product(options.profiles.split(","), sizes):
        row = measure_step(corpus, profile, n_clips, options.repeats, options.device, types, peaks)
        print_step(row)
        rows.append(row)
    asked = {name: getattr(options, name) for name in ("profiles", "batches", "repeats")}
    return {**found, "steps": rows, "steps_provenance": provenance("step.py", **asked)}


def generation_part(options: argparse.Namespace, corpus: Corpus) -> dict[str, Any]:
    """A row for every profile."""
    rows = []
    for profile in options.profiles.split(","):
        row = measure_generation(corpus, profile, options.device)
        print(
            f"{profile}: cached generation {row['ratio']:.1f} x uncached at"
            f" {N_GENERATED} frames, real-time factor {row['real_time_factor']:.2f},"
            f" {row['side_by_side']} clips side by side"
            f" {row['real_time_factor_side_by_side']:.2f}",
            flush=True,
        )
        rows.append(row)
    origin = provenance("step.py", profiles=options.profiles, parts="generation")
    return {"generation": rows, "generation_provenance": origin}


def print_step(row: dict) -> None:
    """One row as lines of the table."""
    print(
        f"{row['profile']}, {row['clips']} clips: {row['valid_frames']} valid of"
        f" {row['padded_frames']} frames, {max(row['operations'].values()) / 1e9:.1f} GFLOP,"
        f" activations {row['activation_bytes']['plain'] / 2**20:.0f} MiB, checkpointed"
        f" {row['activation_bytes']['checkpointed'] / 2**20:.0f} MiB"
    )
    for name, value in row["frames_per_second"].items():
        line = f"    {name:38s} {value:8.0f} valid frames/s,"
        line += f" {row['ratio_to_nn_transformer'][name]:.2f} x {WRITTEN}"
        share = row["share_of_peak"].get(name)
        if share is not None:
            alike = row["ratio_like_for_like"][name]
            line += f", {alike:.2f} x like for like, {share:.0%} of the peak"
        print(line, flush=True)


if __name__ == "__main__":
    main()
