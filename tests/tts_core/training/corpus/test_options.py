"""Flags: typed, made from the dataclasses, and refused where they are wrong."""

from pathlib import Path

import pytest

from tts_core.errors import WorkbookError
from tts_core.training.corpus.command import main
from tts_core.training.corpus.options import RunConfig, TrainConfig, read_flags


def test_flags_are_typed_by_their_fields():
    train, run = read_flags(
        [
            "--data",
            "d",
            "--lr",
            "3e-4",
            "--steps",
            "700",
            "--precision",
            "bf16",
            "--gradient-checkpointing",
            "--no-figures",
            "--ids",
            "list.txt",
            "--dropout",
            "none",
            "--threads",
            "none",
        ]
    )
    assert train == TrainConfig(lr=3e-4, steps=700, precision="bf16", gradient_checkpointing=True)
    assert run == RunConfig(data=Path("d"), figures=False, ids=Path("list.txt"))


@pytest.mark.parametrize(
    "flags, message",
    (
        (["--stepz", "5"], r"no flag '--stepz' \(did you mean --steps\?\).*--help"),
        (["--steps", "5.5"], "argument --steps: invalid int value: '5.5'"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--precision", "fp8"], "--precision: invalid choice: 'fp8'"),
        # no abbreviations
        (["--step", "5"], "no flag '--step'"),
        (["extra"], "no flag 'extra'"),
        (
            ["--warmup-steps", "20000"],
            r"warmup_steps \(--warmup-steps\) = 20000.*below steps = 20000",
        ),
        (["--lr", "-1"], r"\(--lr\) = -1.0, but it must be positive"),
        (["--lr", "nan"], r"\(--lr\) = nan"),
        (["--micro-batches", "0"], r"\(--micro-batches\) = 0, but it must be 1 or more"),
        (["--dropout", "1"], r"\(--dropout\) = 1.0"),
        (["--clip-norm", "inf"], r"\(--clip-norm\) = inf, but it must be finite and positive"),
        (
            ["--history-dropout", "1.5"],
            r"\(--history-dropout\) = 1.5, but it must be between 0 and 1",
        ),
    ),
)
def test_wrong_flags_raise(flags, message):
    with pytest.raises(WorkbookError, match=message):
        read_flags(["--data", "d", *flags])


def test_data_is_required():
    with pytest.raises(WorkbookError, match="required: --data"):
        read_flags([])


def test_the_command_prints_what_is_wrong_and_exits_2(capsys, tmp_path):
    assert main(["--data", str(tmp_path / "absent"), "--stepz", "1"]) == 2
    assert "did you mean --steps" in capsys.readouterr().err
    assert (
        main(["--data", str(tmp_path / "absent"), "--no-figures", "--out", str(tmp_path / "out")])
        == 2
    )
    assert "no such data folder" in capsys.readouterr().err


def test_help_names_every_flag_with_its_meaning(capsys):
    with pytest.raises(SystemExit) as stop:
        read_flags(["--help"])
    shown = capsys.readouterr().out
    assert (
        stop.value.code == 0
        and "--batch-clips" in shown
        and "clips of one step at most, of all processes" in " ".join(shown.split())
    )


def test_experiment_carries_what_the_flags_say():
    experiment = TrainConfig(
        profile="smoke",
        lr=1e-4,
        dropout=0.3,
        history_dropout=0.4,
        decoder_adds_memory=True,
        seed=7,
        weight_decay=0.0,
        clip_norm=0.5,
    ).experiment(12)
    assert (
        experiment.model.decoder_adds_memory
        and not TrainConfig().experiment(12).model.decoder_adds_memory
    )
    assert (
        experiment.optimizer.lr,
        experiment.model.dropout,
        experiment.model.history_dropout,
        experiment.fit.seed,
    ) == (1e-4, 0.3, 0.4, 7)
    assert (
        experiment.optimizer.weight_decay,
        experiment.optimizer.clip_norm,
        experiment.model.vocab_size,
    ) == (0.0, 0.5, 12)
