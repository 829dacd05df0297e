"""Two processes are one: gradients, losses and counts of DDP equal those of one process with the same clips."""

import pytest
import torch
from torch import multiprocessing

from tests.training.ranks import run_rank, step_of

CASES = {"plain": {}, "checkpointing": {"checkpointing": True}, "steps": {"steps": 3}}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, dict]]:
    """What each of two processes saw, by case; they are started once, which is what takes time."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(run_rank, (2, str(folder / "rendezvous"), str(folder / "rank"), CASES), nprocs=2)
    return [torch.load(folder / f"rank.{rank}") for rank in range(2)]


@pytest.mark.parametrize("case", ("plain", "checkpointing"))
def test_gradients_and_losses_of_two_processes_equal_one_with_the_same_clips(ranks, case):
    """Unequal clips, frames and phonemes per process, two micro-batches each: means run over the values of all."""
    one = step_of(0, 1)
    for rank in ranks:
        assert rank[case]["reports"][0] == pytest.approx(one["reports"][0], rel=1e-9)
        assert rank[case]["reports"][0]["valid_frames"] == 1090
        for name, gradient in one["moved"].items():
            torch.testing.assert_close(rank[case]["moved"][name], gradient, rtol=1e-7, atol=1e-11, msg=name)
    assert max(float(gradient.abs().max()) for gradient in one["moved"].values()) > 1e-2     # there is something to compare


def test_processes_stay_bitwise_equal_over_steps(ranks):
    """Only gradients travel: weights that drift apart would never meet again."""
    first, second = (rank["steps"] for rank in ranks)
    assert len(first["reports"]) == 3 and first["reports"] == second["reports"]
    assert all(torch.equal(first["moved"][name], second["moved"][name]) for name in first["moved"])
