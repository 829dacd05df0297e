"""A neural vocoder from a local folder, in place of Griffin-Lim: Vocos (Siuzdak 2023, PyPI
`vocos`).

The folder holds `config.yaml` as Vocos writes it and the weights as one `*.safetensors`. Nothing is
downloaded, and no code named in the folder is run: backbone and head are taken from Vocos by name.
The mel recipe follows from Vocos' own features; a checkpoint trained on other log-mels (natural
log, not normalised) says so in an `audio:` block of `config.yaml` with the fields of `AudioConfig`.
Shapes: T frames, M mel bins, L samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tts_core.config import AudioConfig, from_dict
from tts_core.errors import WorkbookError

question = "How does a mel sound through a neural vocoder?"

BACKBONES = ("VocosBackbone", "VocosResNetBackbone")
HEADS = ("ISTFTHead", "IMDCTSymExpHead", "IMDCTCosHead")
OWN_FEATURES = "vocos.feature_extractors.MelSpectrogramFeatures"
# What Vocos' own features are where their arguments do not say otherwise.
OWN_DEFAULTS = {"sample_rate": 24_000, "n_fft": 1024, "hop_length": 256, "n_mels": 100}
PICKLED = (".bin", ".pt", ".ckpt")  # weights that can run code when loaded
VOCOS_FLOOR = 1e-7  # magnitudes are clamped here by Vocos' own features


class NeuralVocoder:
    """Called as `griffin_lim` is: `vocoder(log_mel (T, M), audio)` -> samples ((T - 1) * hop,), on
    the CPU.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, audio: AudioConfig, padding: str, name: str
    ) -> None:
        self.audio, self.name = audio, name
        self._net = nn.Sequential(backbone, head).eval()
        # its frame t is centred half a hop late
        self._skip = audio.hop_length // 2 if padding == "same" else 0

    def check_recipe(self, audio: AudioConfig) -> None:
        """Raises WorkbookError where `audio` is not the recipe that the vocoder was trained on,
        naming what differs.
        """
        differences = recipe_differences(self.audio, audio)
        if differences:
            raise WorkbookError(
                f"{self.name}: this vocoder was trained on another mel recipe: {differences}. Use"
                ' one for the recipe at hand, or Griffin-Lim (vocoder = "")'
            )

    def __call__(self, log_mel: Tensor, audio: AudioConfig, phase_seed: int = 0) -> np.ndarray:
        """`phase_seed` changes nothing: there is no random phase. Raises WorkbookError for another
        recipe.
        """
        self.check_recipe(audio)
        if log_mel.ndim != 2 or not bool(log_mel.isfinite().all()):
            raise WorkbookError(
                f"{self.name}: a log-mel of shape {tuple(log_mel.shape)} with"
                f" {int((~log_mel.isfinite()).sum())} non-finite values; it must be (T, M) and"
                " finite"
            )
        with torch.inference_mode():
            samples = self._net(log_mel.detach().float().cpu().T[None])[0]
        samples = samples[self._skip : self._skip + (len(log_mel) - 1) * audio.hop_length]
        if not bool(samples.isfinite().all()):
            raise WorkbookError(
                f"{self.name}: the vocoder answered with non-finite samples; are its weights whole?"
            )
        return samples.numpy()


def load_vocoder(folder: Path | str, wanted: AudioConfig | None = None) -> NeuralVocoder:
    """The Vocos checkpoint in `folder`, in eval mode on the CPU, checked against the recipe
    `wanted` if that is given.

    Raises WorkbookError naming the file and the remedy.
    """
    folder = Path(folder)
    config = _read_config(folder / "config.yaml")
    weights = _read_weights(folder)
    try:
        from vocos import heads, models
    except ImportError as error:
        raise WorkbookError(
            f"{folder}: a neural vocoder needs the package vocos ({error}); "
            "pip install 'tts-overfit-workbook[vocoder]'"
        ) from error
    audio = _recipe_of(config, folder)
    backbone = _build(models, BACKBONES, config, "backbone", folder)
    head = _build(heads, HEADS, config, "head", folder)
    for name, part in (("backbone", backbone), ("head", head)):
        prefix = f"{name}."
        keys = [key for key in weights if key.startswith(prefix)]
        own = {key.removeprefix(prefix): weights[key] for key in keys}
        try:
            part.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise WorkbookError(f"{folder}: the weights do not fit config.yaml: {error}") from error
    padding = config["head"]["init_args"].get("padding", "same")
    vocoder = NeuralVocoder(backbone, head, audio, padding, str(folder))
    if wanted is not None:
        vocoder.check_recipe(wanted)
    return vocoder


def recipe_differences(trained: AudioConfig, wanted: AudioConfig) -> str:
    """In words, the fields in which two recipes differ; "" where they are the same. The floor may
    differ.
    """
    told = []
    for field in dataclasses.fields(AudioConfig):
        theirs, here = getattr(trained, field.name), getattr(wanted, field.name)
        if field.name != "log_floor" and theirs != here:
            told.append(f"{field.name} {theirs} but {here} here")
    return ", ".join(told)


def _read_config(path: Path) -> Mapping[str, Any]:
    import yaml

    if not path.is_file():
        raise WorkbookError(
            f"{path}: no such file; a vocoder is a local folder with config.yaml and *.safetensors"
        )
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise WorkbookError(f"{path}: not YAML ({error})") from error
    for part in ("feature_extractor", "backbone", "head"):
        section = config.get(part) if isinstance(config, dict) else None
        if not _names_a_class(section):
            raise WorkbookError(
                f"{path}: no section {part!r} with class_path and init_args, as Vocos writes it"
            )
    return config


def _names_a_class(section: Any) -> bool:
    """Whether a section of the config has class_path and init_args; absent arguments become {}."""
    if not isinstance(section, dict) or not isinstance(section.get("class_path"), str):
        return False
    return isinstance(section.setdefault("init_args", {}), dict)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        names = [file.name for file in sorted(folder.glob("*")) if file.suffix in PICKLED]
        hint = (
            f"; {', '.join(names)} can run code when loaded and is not read: convert it where you"
            " trust it with safetensors.torch.save_file(torch.load(FILE, weights_only=True),"
            " 'model.safetensors')"
        )
        raise WorkbookError(
            f"{folder}: {len(files)} files *.safetensors, wanted one{hint if names else ''}"
        )
    try:
        return load_file(files[0])
    except SafetensorError as error:
        raise WorkbookError(
            f"{files[0]}: not a whole safetensors file ({error}); copy it again"
        ) from error


def _recipe_of(config: Mapping[str, Any], folder: Path) -> AudioConfig:
    """The mel recipe that the checkpoint was trained on."""
    where = f"{folder / 'config.yaml'}: audio"
    if "audio" in config:
        if not isinstance(config["audio"], dict):
            raise WorkbookError(
                f"{where} = {config['audio']!r}, but it must be a mapping of AudioConfig's fields"
            )
        try:
            return from_dict(AudioConfig, config["audio"], where)
        except TypeError as error:
            raise WorkbookError(f"{where}: {error}") from error
    features = config["feature_extractor"]
    if features["class_path"] != OWN_FEATURES:
        raise WorkbookError(
            f"{where}: features {features['class_path']}, whose recipe nothing states; add an"
            " `audio:` block with the fields of AudioConfig (sample_rate, n_fft, hop_length,"
            " n_mels, f_max, …)"
        )
    given = OWN_DEFAULTS | features["init_args"]
    return AudioConfig(
        sample_rate=given["sample_rate"],
        n_fft=given["n_fft"],
        win_length=given["n_fft"],
        hop_length=given["hop_length"],
        n_mels=given["n_mels"],
        f_max=given["sample_rate"] / 2,
        mel_scale="htk",
        mel_norm="none",
        log_floor=VOCOS_FLOOR,
    )


def _build(
    module: Any, known: tuple[str, ...], config: Mapping[str, Any], part: str, folder: Path
) -> nn.Module:
    """The class that the config names, if it is one of Vocos' own, with the config's arguments."""
    name = config[part]["class_path"].removeprefix(f"{module.__name__}.")
    if name not in known:
        choices = ", ".join(f"{module.__name__}.{choice}" for choice in known)
        raise WorkbookError(
            f"{folder / 'config.yaml'}: {part} {config[part]['class_path']!r}, but it must be"
            f" one of {choices}"
        )
    try:
        return getattr(module, name)(**config[part]["init_args"])
    except (TypeError, ValueError) as error:
        raise WorkbookError(
            f"{folder / 'config.yaml'}: {part} cannot be built ({error})"
        ) from error
