"""Planted faults of optimiser, precision, training loop and loss, for any model: (build, setting)
-> faulty Subject.

`build(setting, mel_loss=...)` returns the clean subject (see faults.py); everything else is done to
its fields. The range that a severity is drawn from stands beside each plant.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tts_workbook.faults.planting import Build, Setting
from tts_workbook.subject.clip_data import clipped_step
from tts_workbook.subject.subject import Subject


def weights_not_loaded(build: Build, setting: Setting, steps: int = 60) -> Subject:
    """Trained weights saved under `module.`, all or all but one child's (drawn), and loaded with
    strict=False: they stay fresh.

    The training is `steps` of the clean twin.
    """
    subject = build(setting)
    train_step = subject.train_step or clipped_step(subject.losses)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        model = subject.build_model()
        optimizer = subject.make_optimizer(model)
        for _ in range(steps):
            train_step(model, optimizer, subject.batch)
    children = [
        name for name, child in model.named_children() if any(True for _ in child.parameters())
    ]
    spared = setting.random.choice([None, *children])
    checkpoint = {
        (key if key.split(".")[0] == spared else f"module.{key}"): value.detach().clone()
        for key, value in model.state_dict().items()
    }

    def build_model() -> nn.Module:
        fresh = subject.build_model()
        fresh.load_state_dict(checkpoint, strict=False)
        return fresh

    return replace(subject, build_model=build_model, checkpoint=checkpoint)
