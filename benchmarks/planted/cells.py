"""Which runs the benchmark has, and the subject of each.

Nothing here looks at a result: what is planted is settled before the diagnosis is asked.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.planted.architecture import Architecture, draw_setting
from tts_workbook.diagnosis.benchmark_scores import SCORED, TUNING, Cell, Kind
from tts_workbook.faults.planting import Setting
from tts_workbook.faults.registry import CAUSES
from tts_workbook.subject.subject import Subject

KINDS: tuple[Kind, ...] = ("fault", "clean", "outside", "pair", "sound", "thread")
N_CLEAN = 45  # some of which may not pass the overfit gate: 40 have to be left


def clean_settings(n: int = N_CLEAN) -> list[dict[str, Any]]:
    """What varies over the clean runs: optimiser, warm-up, dropout, bf16, batch size, tying,
    declared freezing.
    """
    return [clean_setting(number) for number in range(n)]


def clean_setting(number: int) -> dict[str, Any]:
    """The fields of Setting that clean run `number` draws. The order of the draws is part of it."""
    stream = random.Random(f"clean {number}")
    return {
        "optimizer": ("adamw", "adam", "sgd")[(number + number // 3) % 3],
        "warmup": stream.choice((0, 0, 20)),
        "dropout": stream.choice((0.0, 0.1, 0.2, 0.3)),
        "bf16": stream.random() < 0.25,
        "batch_size": stream.choice((1, 2, 4, 8)),
        "tied": stream.random() < 0.25,
        "frozen": stream.random() < 0.25,
    }


def cells(
    architectures: Mapping[str, Architecture],
    held_out: Collection[str],
    seeds: Sequence[int],
    kinds: Iterable[Kind] = KINDS,
    n_clean: int = N_CLEAN,
    n_pairs: int = 20,
) -> list[Cell]:
    """Every cell, in an order in which an early stop leaves something of everything: the clean
    runs and the pairs come behind the first scored seed.
    """
    wanted = set(kinds)
    others: list[Cell] = []
    if "clean" in wanted:
        others += clean_cells(list(architectures), n_clean)
    if "pair" in wanted:
        others += pair_cells(architectures, n_pairs)
    found: list[Cell] = []
    for seed in seeds:
        for architecture_name, architecture in architectures.items():
            tuned = architecture_name not in held_out
            if tuned or seed in SCORED:
                found += cells_of_a_seed(architecture_name, architecture, seed, wanted)
        if seed in SCORED:
            found += others
            others = []
    return found + others


def clean_cells(names: Sequence[str], n: int) -> list[Cell]:
    """The clean runs, dealt out to the architectures in turn."""
    return [
        Cell(names[number % len(names)], "clean", str(number), 100 + number) for number in range(n)
    ]


def pair_cells(architectures: Mapping[str, Architecture], n: int) -> list[Cell]:
    """The runs with two faults at once."""
    drawn = pairs(architectures, n)
    return [Cell(name, "pair", pair, SCORED[0]) for name, pair in drawn]


def cells_of_a_seed(
    name: str, architecture: Architecture, seed: int, kinds: Collection[Kind]
) -> list[Cell]:
    """One architecture's planted faults under one seed, in the order of the catalogue; faults
    outside of it, designs that are meant and faults of public threads under the first seed of each
    half.
    """
    found: list[Cell] = []
    if "fault" in kinds:
        planted = [fault for fault in CAUSES if fault in architecture.plants]
        found += [Cell(name, "fault", fault, seed) for fault in planted]
    if "outside" in kinds and seed in (TUNING[0], SCORED[0]):
        found += [Cell(name, "outside", fault, seed) for fault in architecture.outside]
    if "sound" in kinds and seed in (TUNING[0], SCORED[0]):
        found += [Cell(name, "sound", design, seed) for design in architecture.sound]
    if "thread" in kinds and seed in (TUNING[0], SCORED[0]):
        found += [Cell(name, "thread", thread, seed) for thread in architecture.threads]
    return found


# The first of a pair: faults whose sign does not hang on a training that goes well.
STANDING = (
    "data.token_collapse",
    "data.duration_sum",
    "data.mel_recipe",
    "data.sample_rate",
    "data.stale_features",
    "data.unnormalised_target",
    "model.memory_scale",
    "model.no_causal_mask",
    "model.no_right_shift",
    "model.padding_mask",
    "model.text_ignored",
    "model.encoder_detached",
    "model.positions",
    "model.dropout_always_on",
    "model.output_range",
    "loss.padding_included",
    "loss.imbalance",
    "loss.wrong_reduction",
    "loss.detached",
    "loss.logged_not_optimised",
    "generation.layout",
)


def pairs(architectures: Mapping[str, Architecture], n: int) -> list[tuple[str, str]]:
    """(architecture, "a & b"): one that stands whatever training does, with one of the training,
    drawn at random.
    """
    stream = random.Random("pairs")
    names = [name for name, architecture in architectures.items() if architecture.layers]
    drawn: list[tuple[str, str]] = []
    while names and len(drawn) < n:
        name = names[len(drawn) % len(names)]
        architecture = architectures[name]
        first = stream.choice([fault for fault in STANDING if fault in architecture.plants])
        second = stream.choice(sorted(architecture.layers))
        pair = (name, f"{first} & {second}")
        if pair not in drawn:
            drawn.append(pair)
    return drawn


def setting_of(architecture: Architecture, cell: Cell) -> Setting:
    """The setting of a cell and of its clean twin: what the fault needs in order to matter is part
    of it.
    """
    fields: dict[str, Any] = {}
    if cell.kind == "clean":
        fields = clean_setting(int(cell.fault))
    elif cell.kind in ("fault", "pair"):
        for fault in cell.faults:
            fields |= architecture.required(fault)
    elif cell.kind == "thread":
        fields = dict(architecture.threads[cell.fault].needs)
    return draw_setting(cell.seed, max_seconds=architecture.max_seconds, **fields)


def build(architecture: Architecture, cell: Cell) -> Subject:
    """The subject of a cell."""
    setting = setting_of(architecture, cell)
    if cell.kind == "clean":
        return architecture.clean(setting)
    if cell.kind == "outside":
        return architecture.outside[cell.fault](setting)
    if cell.kind == "sound":
        return architecture.sound[cell.fault](setting)
    if cell.kind == "thread":
        return architecture.threads[cell.fault].build(setting)
    if cell.kind == "fault":
        return architecture.plants[cell.fault](setting)
    first, second = cell.faults
    return architecture.layers[second](architecture.plants[first], setting)
