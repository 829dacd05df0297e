"""Checkpoints: one safetensors file each, with its configuration as JSON in the header. Nothing in
it can run code.

A file is written under a temporary name and renamed: it is complete or absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tts_core.config import ExperimentConfig, from_dict
from tts_core.errors import WorkbookError
from tts_core.model.tts import TTSModel
from tts_core.speech.audio import atomic_path
from tts_core.training.state import Training

CHECKPOINT_FORMAT = "tts-overfit-workbook 1"

Tensors = dict[str, torch.Tensor]  # by name: model.*, optimizer.INDEX.*, rng.*
Header = dict[str, Any]  # JSON: experiment, history, notes, scaler


# --- the file -------------------------------------------------------------------------------------


def _write(path: Path, tensors: Tensors, header: Header) -> None:
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(
            on_cpu, temporary, metadata={"format": CHECKPOINT_FORMAT, "header": json.dumps(header)}
        )


def _read(path: Path) -> tuple[Tensors, Header]:
    path = Path(path)
    if not path.is_file():
        raise WorkbookError(
            f"{path}: there is no such checkpoint; train one first, for example with `tts-workbook"
            " run --only 03`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise WorkbookError(
            f"{path}: not a safetensors file ({error}). Pickled checkpoints (.pt, .pth, .ckpt) can"
            " run code and are refused; convert one where you trust it:"
            " safetensors.torch.save_file(state_dict, path)"
        ) from error
    if metadata.get("format") != CHECKPOINT_FORMAT:
        raise WorkbookError(
            f"{path}: safetensors, but not a checkpoint of this workbook (its header says "
            f"{metadata.get('format')!r}, wanted {CHECKPOINT_FORMAT!r})"
        )
    return tensors, json.loads(metadata["header"])


def _differences(found: Header, wanted: Header, prefix: str = "") -> list[str]:
    """One line for each setting that two nested mappings do not agree on."""
    lines = []
    for key in sorted(set(found) | set(wanted)):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: checkpoint {a!r}, wanted {b!r}")
    return lines


def _load_weights(model: torch.nn.Module, tensors: Tensors, path: Path) -> None:
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in tensors.items()
        if name.startswith("model.")
    }
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise WorkbookError(f"{path}: its weights do not fit the model: {error}") from error


# --- a training in progress -----------------------------------------------------------------------


def save_training(path: Path, training: Training) -> None:
    """Write weights, optimiser, scaler, random state and history of `training` to `path`,
    atomically.
    """
    tensors = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    for index, state in training.optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = value
    tensors["rng.cpu"] = training.rng_state
    if training.cuda_rng_state is not None:
        tensors["rng.cuda"] = training.cuda_rng_state
    header = {
        "experiment": training.experiment.to_dict(),
        "history": training.history,
        "notes": training.notes,
        "scaler": training.scaler.state_dict(),
    }
    _write(path, tensors, header)


def load_training(path: Path, training: Training) -> Training:
    """Fill a fresh `training` from `path`; raises WorkbookError naming every setting that differs.

    The number of steps may differ: a longer run may continue a shorter one.
    """
    tensors, header = _read(path)
    _require_same_experiment(path, header, training.experiment)
    _load_weights(training.model, tensors, path)
    training.optimizer.load_state_dict(
        {
            "state": _optimizer_state(tensors),
            "param_groups": training.optimizer.state_dict()["param_groups"],
        }
    )
    if header["scaler"]:  # empty where it was trained without one, on another device
        training.scaler.load_state_dict(header["scaler"])
    training.rng_state = tensors["rng.cpu"]
    training.cuda_rng_state = tensors.get("rng.cuda", training.cuda_rng_state)
    training.history = header["history"]
    training.notes = header["notes"]
    return training


def _require_same_experiment(path: Path, header: Header, experiment: ExperimentConfig) -> None:
    """WorkbookError where the checkpoint's experiment is another one; a switch that is newer than
    the checkpoint has its default, and the number of steps may differ.
    """
    saved = from_dict(ExperimentConfig, header["experiment"], str(path))
    found = json.loads(json.dumps(saved.to_dict()))
    wanted = json.loads(json.dumps(experiment.to_dict()))
    found["fit"]["steps"] = wanted["fit"]["steps"]
    differences = _differences(found, wanted)
    if differences:
        raise WorkbookError(
            f"{path}: checkpoint of another configuration: {'; '.join(differences)}. Use its own,"
            " or another path"
        )


def _optimizer_state(tensors: Tensors) -> dict[int, Tensors]:
    """The optimiser's tensors by the number of the parameter that they belong to."""
    state: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    return state


# --- a trained model ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadedModel:
    model: TTSModel  # eval mode, CPU
    experiment: ExperimentConfig
    history: list[dict[str, Any]]  # one StepReport per step, as a mapping
    notes: dict[str, Any]  # what it was trained on: preset, clips, symbols


def load_model(path: Path) -> LoadedModel:
    """The trained model of a checkpoint with its configuration and history. Raises WorkbookError
    naming `path`.
    """
    tensors, header = _read(path)
    experiment = from_dict(ExperimentConfig, header["experiment"], str(path))
    model = TTSModel(experiment.model, experiment.audio)
    _load_weights(model, tensors, path)
    return LoadedModel(model.eval(), experiment, header["history"], header["notes"])
