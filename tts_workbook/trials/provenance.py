"""Where a trial was computed, and with what."""

from __future__ import annotations

import datetime
import platform
from typing import Any

import torch


def where_computed(device: str) -> dict[str, Any]:
    """Device, threads, versions, machine and date."""
    smallest = float(torch.tensor(1e-40) * 1.0)
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "denormals": "flushed" if smallest == 0.0 else "kept",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "date": datetime.date.today().isoformat(),
    }
