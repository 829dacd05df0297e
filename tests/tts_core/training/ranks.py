"""What the processes of tests/tts_core/training/test_distributed.py run: importable, since they are
spawned.
"""

from __future__ import annotations

import datetime
import time

import torch
from torch import distributed

from tests.conftest import make_batch, make_experiment, make_model
from tts_core.errors import WorkbookError
from tts_core.training import step
from tts_core.training.distributed import across_processes, bare_model
from tts_core.training.precision import choose_precision
from tts_core.training.step import train_step

# One step's clips as frames per phoneme. Processes get other numbers of clips, of phonemes and of
# frames.
CLIPS = [[2, 3, 4], [5, 1, 4, 4], [9], [1030, 2, 7], [3, 3], [4, 4, 4, 1]]
# world -> rank -> micro-batches
SHARES = {1: [[CLIPS]], 2: [[[CLIPS[3]], CLIPS[:1]], [[CLIPS[1], CLIPS[2], CLIPS[4]], CLIPS[5:]]]}


def parts(clips: list[list[int]]):
    """The batch of these clips in fp64, each clip with the same mel in whatever batch it is."""
    singles = [
        make_batch([durations], seed=CLIPS.index(durations), dtype=torch.float64)
        for durations in clips
    ]
    whole = make_batch(clips, dtype=torch.float64)
    for row, single in enumerate(singles):
        whole.mel[row, : single.mel.shape[1]] = single.mel[0]
        whole.phonemes[row, : single.phonemes.shape[1]] = single.phonemes[0]
    return whole


def step_of(
    rank: int,
    world: int,
    checkpointing: bool = False,
    steps: int = 1,
    broken_rank: int | None = None,
) -> dict:
    """Reports of `steps` plain SGD steps of rate 1 without clip, and how far each weight went: the
    gradients.

    With `broken_rank` that process has a NaN in the mel of its last micro-batch, and takes a second
    to say so; then what was raised instead, and when.
    """
    torch.set_num_threads(1)
    experiment = make_experiment(gradient_checkpointing=checkpointing)
    # DDP starts from rank 0's
    model = make_model(experiment, make_batch(CLIPS), seed=0 if world == 1 else rank).double()
    trained = model if world == 1 else across_processes(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    precision = choose_precision("fp32", "cpu")
    batches = [parts(clips) for clips in SHARES[world][rank]]
    if rank == broken_rank:
        batches[-1].mel[0, 0, 0] = torch.nan
        reason = step.non_finite_reason
        step.non_finite_reason = lambda *arguments: time.sleep(1) or reason(*arguments)
    try:
        reports = [
            train_step(
                trained,
                optimizer,
                batches,
                experiment.loss,
                precision,
                precision.scaler(),
                clip_norm=None,
            ).to_dict()
            for _ in range(steps)
        ]
    except WorkbookError as error:
        return {"raised": str(error), "at": time.monotonic()}
    assert bare_model(trained) is model
    return {
        "reports": reports,
        "moved": {name: before[name] - p.detach() for name, p in model.named_parameters()},
    }


def run_rank(rank: int, world: int, rendezvous: str, out: str, cases: dict[str, dict]) -> None:
    """Join the group of `world` processes, step through every case, and save what happened to
    `out`.rank.
    """
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=120),
    )
    torch.save(
        {name: step_of(rank, world, **options) for name, options in cases.items()}, f"{out}.{rank}"
    )
    distributed.destroy_process_group()
