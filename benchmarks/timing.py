"""Measuring for ratios within one run: contenders that take turns, the device's own peak, memory
that backward keeps.
"""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from tts_core.environment import device_name, git_commit, versions
from tts_workbook.trials.executors import processors

ROOT = Path(__file__).resolve().parents[1]


def synchronise() -> None:
    """Wait for what a GPU still computes."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interleaved_medians(
    contenders: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
    """Median seconds of each, A B C A B C …, after one warm-up of all: a machine whose speed drifts
    treats them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats + 1):
        for name, run in contenders.items():
            synchronise()
            started = time.perf_counter()
            run()
            synchronise()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matmul_peak(
    dtype: torch.dtype, device: str = "cpu", sizes: tuple[int, ...] = (1024, 2048), repeats: int = 5
) -> float:
    """Operations per second of the best of a few square matrix products: what this device really
    gives in this type.
    """
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = partial(torch.matmul, a, b)
        seconds = interleaved_medians({"product": product}, repeats)["product"]
        best = max(best, 2.0 * size**3 / seconds)
    return best


def bandwidth(device: str = "cpu", n_bytes: int = 2**28, repeats: int = 5) -> float:
    """Bytes per second that this device reads and writes when it adds a number to each of many."""
    values = torch.zeros(n_bytes // 4, device=device)
    seconds = interleaved_medians({"add": lambda: values.add_(1.0)}, repeats)["add"]
    return 2 * n_bytes / seconds


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that the graph of `forward()` keeps for backward, each storage once, parameters left
    out: activation memory.
    """
    kept: dict[int, int] = {}
    held = []  # so that no storage is freed and its address used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            held.append(storage)
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def processor() -> str:
    """Model name of the processor, as the kernel gives it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def provenance(script: str, **options: object) -> dict[str, object]:
    """Where and when a result was measured, and the command that measures it again."""
    flags = "".join(f" --{name.replace('_', '-')} {value}" for name, value in options.items())
    return {
        "command": f"python benchmarks/{script}{flags}",
        "commit": git_commit(ROOT),
        "date": datetime.date.today().isoformat(),
        "device": device_name(),
        "processor": processor(),
        "processors": processors(),
        "threads": torch.get_num_threads(),
        "versions": {name: versions()[name] for name in ("python", "torch", "torchaudio", "numpy")},
    }
