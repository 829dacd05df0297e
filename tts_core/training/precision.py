"""Numeric precision of a training step, chosen as in the findings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tts_core.errors import WorkbookError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Weights are always fp32; `name` says in which type autocast runs the matrix products."""

    name: str  # fp32, bf16 or fp16
    device: str  # device type: cpu, cuda, mps

    def autocast(self) -> torch.autocast:
        """Context for the forward pass and the losses; does nothing in fp32."""
        dtype = DTYPES[self.name]
        if dtype is None:
            return torch.autocast(self.device, dtype=torch.bfloat16, enabled=False)
        return torch.autocast(self.device, dtype=dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaler: needed by fp16 alone; a disabled one is a no-op, so there is one code
        path.
        """
        return torch.amp.GradScaler(self.device, enabled=self.name == "fp16")


def training_device() -> str:
    """`cuda` where there is one, else `cpu`; MPS is used by request only, since not every probe's
    operator exists there.
    """
    return "cuda" if torch.cuda.is_available() else "cpu"


def choose_precision(requested: str = "auto", device: str | torch.device = "cpu") -> Precision:
    """BF16 on CUDA that supports it, FP16 with GradScaler on older CUDA, FP32 on CPU and MPS; or
    what is requested.

    Raises WorkbookError for a name or a combination that does not exist.
    """
    kind = torch.device(device).type
    if requested == "auto":
        if kind != "cuda":
            return Precision("fp32", kind)
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16" if has_bf16 else "fp16", kind)
    if requested not in DTYPES:
        raise WorkbookError(f"precision {requested!r} is unknown; use auto, {', '.join(DTYPES)}")
    if kind == "mps" and requested != "fp32":
        raise WorkbookError(f"precision {requested!r} is not offered on MPS; use fp32")
    return Precision(requested, kind)
