"""Configuration: frozen dataclasses, one per concern, and the presets `healthy`, `no_norm` and
`seed`.

A preset is a choice of *switches* (what is wrong or right with the model); a profile is a choice of
*size* and budget (`smoke` seconds, `quick` minutes on 2 cores, `seed` the size of the seed's
findings). Any two presets of one profile differ only in the switches listed in `SWITCHES`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from tts_core.errors import WorkbookError

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]  # auto: the device's own


def _require(ok: bool, field_name: str, seen: Any, wanted: str) -> None:
    if not ok:
        raise WorkbookError(f"configuration: {field_name} = {seen!r}, but it must be {wanted}")


def _require_choice(config: Any, field_name: str, choices: tuple[str, ...]) -> None:
    seen = getattr(config, field_name)
    wanted = "one of " + ", ".join(map(repr, choices))
    _require(seen in choices, f"{type(config).__name__}.{field_name}", seen, wanted)


def _require_positive(config: Any, *field_names: str) -> None:
    for name in field_names:
        seen = getattr(config, name)
        _require(seen > 0, f"{type(config).__name__}.{name}", seen, "positive")


@dataclass(frozen=True)
class AudioConfig:
    """Log-mel recipe. The default is the one that HiFi-GAN-style vocoders expect; `seed()` is the
    one of the findings.
    """

    sample_rate: int = 22_050  # Hz; other rates are resampled by load_wav
    n_fft: int = 1024  # samples
    win_length: int = 1024  # samples, Hann window
    hop_length: int = 256  # samples, 11.6 ms
    n_mels: int = 80  # mel bins
    f_min: float = 0.0  # Hz
    f_max: float = 8_000.0  # Hz
    mel_scale: Literal["slaney", "htk"] = "slaney"
    mel_norm: Literal["slaney", "none"] = "slaney"  # area normalisation of the filters
    power: float = 1.0  # 1 magnitude, 2 power spectrogram
    log_floor: float = 1e-5  # mel energies are clamped here before the natural log
    # ln units; log-mels above are clamped (the seed's recipe clamps at 0.0)
    log_ceiling: float | None = None

    def __post_init__(self) -> None:
        _require_positive(self, "sample_rate", "n_fft", "win_length", "hop_length", "n_mels")
        _require(
            self.win_length <= self.n_fft,
            "AudioConfig.win_length",
            self.win_length,
            f"at most n_fft = {self.n_fft}",
        )
        _require(
            0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            "AudioConfig.f_max",
            self.f_max,
            f"above f_min = {self.f_min} and at most half the sample rate,"
            f" {self.sample_rate / 2} Hz",
        )
        _require_positive(self, "log_floor")
        _require(
            self.power in (1.0, 2.0),
            "AudioConfig.power",
            self.power,
            "1.0 (magnitude) or 2.0 (power)",
        )
        _require_choice(self, "mel_scale", ("slaney", "htk"))
        _require_choice(self, "mel_norm", ("slaney", "none"))

    @property
    def silence(self) -> float:
        """Log-mel value of digital silence, ln units."""
        return math.log(self.log_floor)

    @property
    def hop_seconds(self) -> float:
        """Time between frames."""
        return self.hop_length / self.sample_rate

    @classmethod
    def seed(cls) -> AudioConfig:
        """The recipe of the findings (FACTS, point 7): power, HTK, logs clamped to [-11.5, 0]."""
        return cls(
            mel_scale="htk", mel_norm="none", power=2.0, log_floor=math.exp(-11.5), log_ceiling=0.0
        )


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and named switches of the model under study. Each switch is one factor of an
    ablation.
    """

    # phoneme symbols including padding; Vocabulary.get_vocab_size()
    vocab_size: int
    mel_dim: int = 80  # mel bins
    hidden_dim: int = 192  # width of encoder and decoder
    n_heads: int = 4
    n_encoder_layers: int = 3
    n_decoder_layers: int = 3
    encoder_ff_dim: int = 768
    decoder_ff_dim: int = 768
    dropout: float = 0.0  # probability of *dropping*, training mode only
    gradient_checkpointing: bool = False  # recompute activations in backward; changes no number
    # switches
    memory_norm: bool = True  # LayerNorm on the encoder output, before anything reads it
    # N(0,1) embedding times sqrt(hidden_dim), or times 1
    embedding_scale: Literal["sqrt_dim", "unit"] = "sqrt_dim"
    # model the mel per bin as (mel - mean) / std; False: raw log-mels
    standardise_targets: bool = True
    # how the previous frame enters the decoder
    mel_input: Literal["linear", "prenet"] = "linear"
    # probability that a fed-back frame is hidden from the decoder, training mode only
    history_dropout: float = 0.0
    # multiplies the projected previous frame, before positions are added
    mel_input_scale: float = 1.0
    # first decoder input; raw 0.0, the seed's choice, is *loud*
    go_frame: Literal["zero", "silence"] = "zero"
    decoder_adds_memory: bool = False  # add the length-regulated memory to the decoder input
    memory_positions: bool = True  # sinusoidal frame positions on the length-regulated memory
    # multiplies the memory; 1.0 except in dose-response experiments
    memory_scale: float = 1.0
    # custom: bias 1.79, weight x 0.01
    duration_initialisation: Literal["default", "seed_custom"] = "default"
    # history that generation feeds (FACTS, point 5)
    generation_layout: Literal["train", "seed"] = "train"

    def __post_init__(self) -> None:
        _require_positive(
            self,
            "vocab_size",
            "mel_dim",
            "hidden_dim",
            "n_heads",
            "n_encoder_layers",
            "n_decoder_layers",
            "encoder_ff_dim",
            "decoder_ff_dim",
        )
        nearest = self.n_heads * max(1, round(self.hidden_dim / self.n_heads))
        _require(
            self.hidden_dim % self.n_heads == 0,
            "ModelConfig.hidden_dim",
            self.hidden_dim,
            f"divisible by n_heads = {self.n_heads}; try {nearest}",
        )
        _require(
            self.hidden_dim % 2 == 0,
            "ModelConfig.hidden_dim",
            self.hidden_dim,
            "even (sine and cosine positions)",
        )
        _require(
            0.0 <= self.dropout < 1.0,
            "ModelConfig.dropout",
            self.dropout,
            "in [0, 1): the share that is dropped",
        )
        _require(
            0.0 <= self.history_dropout <= 1.0,
            "ModelConfig.history_dropout",
            self.history_dropout,
            "in [0, 1]",
        )
        _require_positive(self, "memory_scale")
        _require_choice(self, "embedding_scale", ("sqrt_dim", "unit"))
        _require_choice(self, "mel_input", ("linear", "prenet"))
        _require_choice(self, "go_frame", ("zero", "silence"))
        _require_choice(self, "duration_initialisation", ("default", "seed_custom"))
        _require_choice(self, "generation_layout", ("train", "seed"))

    @classmethod
    def healthy(cls, vocab_size: int, **changes: Any) -> ModelConfig:
        """The repaired model (the default of every switch)."""
        return cls(vocab_size=vocab_size, **changes)

    @classmethod
    def seed(cls, vocab_size: int, **changes: Any) -> ModelConfig:
        """The failing case of the findings at its own size; `changes` may give another size or
        repair a switch.
        """
        settings = {**PROFILE_SIZES["seed"], **SEED_SWITCHES, **changes}
        return cls(vocab_size=vocab_size, **settings)


@dataclass(frozen=True)
class LossConfig:
    """How the terms of the loss are weighed against the mel L1."""

    duration_weight: float = 1.0  # times the masked MSE of log1p durations
    stop_weight: float = 0.1  # times the masked stop-token BCE
    stop_positive_weight: float = 1.0  # BCE weight of the one positive frame; 1.0 as in the seed

    def __post_init__(self) -> None:
        for name in ("duration_weight", "stop_weight"):
            _require(
                getattr(self, name) >= 0,
                f"LossConfig.{name}",
                getattr(self, name),
                "zero or positive",
            )
        _require_positive(self, "stop_positive_weight")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW."""

    lr: float = 1e-3  # step size
    weight_decay: float = 0.01  # decoupled
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = 1.0  # global gradient norm; None: no clipping

    def __post_init__(self) -> None:
        _require(
            self.lr > 0 and math.isfinite(self.lr),
            "OptimizerConfig.lr",
            self.lr,
            "positive, for example 1e-3",
        )
        _require(
            self.weight_decay >= 0,
            "OptimizerConfig.weight_decay",
            self.weight_decay,
            "zero or positive",
        )
        _require(
            all(0 <= beta < 1 for beta in self.betas),
            "OptimizerConfig.betas",
            self.betas,
            "two numbers in [0, 1)",
        )
        _require_positive(self, "eps")
        _require(
            self.clip_norm is None or self.clip_norm > 0,
            "OptimizerConfig.clip_norm",
            self.clip_norm,
            "positive, or None for no clipping",
        )


@dataclass(frozen=True)
class FitConfig:
    """How long, from which seed and in which precision."""

    steps: int = 400
    seed: int = 0  # of weights, dropout and data order
    # auto: the seed's choice for the device
    precision: PrecisionName = "auto"

    def __post_init__(self) -> None:
        _require_positive(self, "steps")
        _require_choice(self, "precision", ("auto", "fp32", "bf16", "fp16"))


@dataclass(frozen=True)
class ExperimentConfig:
    """Everything that decides one training: same experiment, data, device and thread count give the
    same bits.
    """

    model: ModelConfig
    audio: AudioConfig = field(default_factory=AudioConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        _require(
            self.model.mel_dim == self.audio.n_mels,
            "ModelConfig.mel_dim",
            self.model.mel_dim,
            f"AudioConfig.n_mels = {self.audio.n_mels}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `from_dict` builds it again."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Hash of the whole configuration, 12 hex digits."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


NESTED: dict[str, type] = {
    "model": ModelConfig,
    "audio": AudioConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
    "fit": FitConfig,
}


def from_dict(cls: type, values: dict[str, Any], where: str = "configuration") -> Any:
    """Build a config dataclass from plain values (JSON); unknown keys raise, nested configs are
    built too.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise WorkbookError(
            f"{where}: unknown key {', '.join(unknown)} for {cls.__name__}; "
            f"known keys are {', '.join(fields)}"
        )
    missing = [
        name for name, field in fields.items() if name not in values and not _has_default(field)
    ]
    if missing:
        raise WorkbookError(f"{where}: {cls.__name__} needs {', '.join(missing)}")
    built = {}
    for name, value in values.items():
        if cls is ExperimentConfig:
            value = from_dict(NESTED[name], value, f"{where}.{name}")
        elif isinstance(value, list):  # JSON knows no tuples
            value = tuple(value)
        built[name] = value
    return cls(**built)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return (
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )


# --- presets --------------------------------------------------------------------------------------

SEED_SWITCHES: dict[str, Any] = dict(
    memory_norm=False,
    embedding_scale="sqrt_dim",
    standardise_targets=False,
    go_frame="zero",
    generation_layout="seed",
)
# Every field in which two presets of one profile may differ.
SWITCHES = (
    "memory_norm",
    "embedding_scale",
    "standardise_targets",
    "mel_input",
    "history_dropout",
    "mel_input_scale",
    "go_frame",
    "decoder_adds_memory",
    "memory_positions",
    "duration_initialisation",
    "generation_layout",
)

PROFILE_SIZES: dict[str, dict[str, Any]] = {
    "smoke": dict(
        hidden_dim=32,
        n_heads=2,
        n_encoder_layers=1,
        n_decoder_layers=1,
        encoder_ff_dim=64,
        decoder_ff_dim=64,
    ),
    "quick": dict(
        hidden_dim=192,
        n_heads=4,
        n_encoder_layers=3,
        n_decoder_layers=3,
        encoder_ff_dim=768,
        decoder_ff_dim=768,
    ),
    "seed": dict(
        hidden_dim=512,
        n_heads=8,
        n_encoder_layers=6,
        n_decoder_layers=6,
        encoder_ff_dim=2048,
        decoder_ff_dim=2048,
        dropout=0.1,
    ),
}
PROFILE_STEPS = {"smoke": 20, "quick": 400, "seed": 800}
# A learning rate at which the healthy model overfits one clip within the steps above; the findings
# used 7e-5.
PROFILE_LR = {"smoke": 2e-3, "quick": 1e-3, "seed": 7e-5}
SEED_LR = 7e-5
PRESET_SWITCHES: dict[str, dict[str, Any]] = {
    "healthy": {},
    "no_norm": {"memory_norm": False},
    "seed": SEED_SWITCHES,
}
PRESETS = tuple(PRESET_SWITCHES)


def preset(
    name: str,
    vocab_size: int,
    profile: str = "quick",
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    precision: str = "auto",
) -> ExperimentConfig:
    """The experiment `name` at the size of `profile`.

    `healthy` is the repaired model, `no_norm` the same with only the memory norm removed, `seed`
    the failing case with its own mel recipe and learning rate (7e-5 unless `lr` is given). Raises
    WorkbookError for an unknown name.
    """
    _require(name in PRESETS, "preset", name, "one of " + ", ".join(PRESETS))
    _require(profile in PROFILE_SIZES, "profile", profile, "one of " + ", ".join(PROFILE_SIZES))
    if steps is None:
        steps = PROFILE_STEPS[profile]
    if lr is None:
        lr = SEED_LR if name == "seed" else PROFILE_LR[profile]
    return ExperimentConfig(
        model=ModelConfig(vocab_size=vocab_size, **PROFILE_SIZES[profile], **PRESET_SWITCHES[name]),
        audio=AudioConfig.seed() if name == "seed" else AudioConfig(),
        optimizer=OptimizerConfig(lr=lr),
        fit=FitConfig(steps=steps, seed=seed, precision=cast(PrecisionName, precision)),
    )
