"""What tests of several causes share: which causes belong together, and what a good and a vain
suspicion of the paired runs look like.
"""

import torch

from tests.tts_workbook.diagnosis.tiny_speaker import blamed, findings
from tests.tts_workbook.diagnosis.tiny_subject import subject
from tts_workbook.faults.selection import MARGIN, paired, select, suspects
from tts_workbook.lab.lab import Lab

# causes that the selection of paired runs confirms or excludes
PAIRED = (
    "data.unnormalised_target",
    "model.memory_scale",
    "model.bad_initialisation",
    "model.norm_runaway",
    "loss.imbalance",
    "optimizer.lr_too_small",
    "optimizer.lr_too_large",
    "optimizer.weight_decay",
    "optimizer.clip_too_tight",
)
OF_THE_LOSS = (
    "loss.wrong_reduction",
    "loss.padding_included",
    "model.padding_mask",
    "loss.detached",
    "loss.logged_not_optimised",
)
OF_THE_MODEL = (
    "model.no_causal_mask",
    "model.no_right_shift",
    "model.text_ignored",
    "model.encoder_detached",
    "model.output_range",
)
OF_NUMBER_FORMATS = (
    "precision.low_precision_weights",
    "precision.mask_overflow",
    "precision.scaler_skips",
    "precision.clip_before_unscale",
)
JUDGES = (*PAIRED, "model.positions", "model.dropout_always_on")


def sgd_at(lr):
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr)


def tiny_lab(**fields):
    return Lab(subject(**fields), steps=48)


def confirmed(bench, cause):
    """The finding of `cause`, the only one that is blamed: a paired run came out better by the
    margin.
    """
    found = findings(bench, *JUDGES)
    assert blamed(found) == {cause} and found[cause].level == "confirmed"
    accepted = select(bench).of(cause)
    assert accepted.before.outcome - accepted.after.outcome > MARGIN
    assert found[cause].strength > MARGIN and found[cause].where
    # what the picture of the courses colours; the finding itself may show another experiment, which
    # is as sure
    assert len(_paired_telling(bench, cause).mended_by) == 1
    return found[cause]


def _paired_telling(bench, cause):
    """What the selection says of `cause`, whatever its other experiments say."""
    experiment = paired(cause)
    numbers = experiment.measure(bench)
    return experiment.tell(numbers, experiment.decide(numbers))


def tried_in_vain(bench, cause):
    """Nothing is blamed, although `cause` was suspected and its change was run."""
    assert not blamed(findings(bench, *JUDGES))
    said = _paired_telling(bench, cause)
    assert "as the one factor" in said.experiment
    assert said.evidence["gain in mean TF L1 / best constant"] < MARGIN


def suspects_of(bench, cause):
    return [suspect for suspect in suspects(bench) if suspect.cause == cause]
