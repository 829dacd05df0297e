"""One part of a subject in fp32 and all else as it is; and fp16 exchanged for bf16, whose range is
that of fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tts_workbook.lab.short_run import Change
from tts_workbook.subject.interventions import HALVES, replaced
from tts_workbook.subject.training_step import all_parameters

LOSSES = "losses"  # the code around the model: what no module of it runs


class WidePart(TorchFunctionMode):
    """Every call inside the part is made in fp32: its tensors are widened, autocast is off."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.part = part  # path of a module, or LOSSES
        self.depth = 0  # modules of the model that are running
        self.inside = 0  # how often the part is running
        self.n_widened = 0  # calls that were given something wider: whether it acted

    def watch(self, model: nn.Module) -> nn.Module:
        """The model itself, its calls followed."""
        for module in model.modules():
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave, always_call=True)
        if self.part != LOSSES:
            part = model.get_submodule(self.part)
            part.register_forward_pre_hook(self._begin, prepend=True)
            part.register_forward_hook(self._end, always_call=True)
        return model

    def __deepcopy__(self, _: Any) -> WidePart:
        return self

    def _enter(self, *_: Any) -> None:
        self.depth += 1

    def _leave(self, *_: Any) -> None:
        self.depth -= 1

    def _begin(self, *_: Any) -> None:
        self.inside += 1

    def _end(self, *_: Any) -> None:
        self.inside -= 1

    @property
    def acts(self) -> bool:
        return self.depth == 0 if self.part == LOSSES else self.inside > 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self.acts or _is_in_place(func):
            return func(*args, **kwargs)
        casts = func in (Tensor.half, Tensor.bfloat16)
        if casts:
            func = Tensor.float
        if casts or _autocasts() or any(map(_is_narrow, (*args, *kwargs.values()))):
            self.n_widened += 1
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return func(*map(_widened, args), **{k: _widened(v) for k, v in kwargs.items()})


def _is_in_place(func: Any) -> bool:
    """What writes into a tensor has to be given that tensor."""
    name = getattr(func, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


def _autocasts() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _is_narrow(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dtype in HALVES
    return isinstance(value, torch.dtype) and value in HALVES


def _widened(value: Any) -> Any:
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_widened, value))
    if not _is_narrow(value):
        return value
    return value.float() if isinstance(value, Tensor) else torch.float32


# --- fp16 exchanged for bf16 ----------------------------------------------------------------------


class _Exchanged(TorchFunctionMode):
    """Every fp16 that is asked for becomes bf16."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.half:
            func = Tensor.bfloat16
        exchanged = {name: _exchanged(value) for name, value in (kwargs or {}).items()}
        return func(*map(_exchanged, args), **exchanged)


def _exchanged(value: Any) -> Any:
    is_half = isinstance(value, torch.dtype) and value == torch.float16
    return torch.bfloat16 if is_half else value


@contextmanager
def bf16_for_fp16() -> Iterator[None]:
    """Casts and autocast to fp16 go to bf16 instead."""
    autocast = torch.amp.autocast_mode.autocast
    enter: Callable[..., Any] = autocast.__enter__

    def enter_exchanged(self: Any) -> Any:
        self.fast_dtype = _exchanged(self.fast_dtype)
        return enter(self)

    with replaced(autocast, __enter__=enter_exchanged), _Exchanged():
        yield


def full_range() -> Change:
    """bf16 in place of fp16, weights and casts: the range of fp32, and coarser rounding."""

    def change(model: nn.Module) -> None:
        for tensor in (*(p for _, p in all_parameters(model)), *model.buffers()):
            if tensor.dtype == torch.float16:
                tensor.data = tensor.data.bfloat16()

    return Change(
        "full_range",
        (),
        "bf16 instead of fp16".format,
        model=change,
        around=lambda model: bf16_for_fp16(),
    )


class Noted(TorchFunctionMode):
    """Whether any call gives a number in fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.seen |= result.dtype == torch.float16
        return result
