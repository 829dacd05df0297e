"""What a probe switches off for a while: checkpointing, 16-bit numbers, masks beyond their range,
batch statistics.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

HALVES = (torch.float16, torch.bfloat16)
WIDE = (torch.float32, torch.float64)


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Attributes of a module or class exchanged for a while."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


@contextmanager
def without_checkpointing() -> Iterator[list[str]]:
    """`torch.utils.checkpoint` keeps every activation, however it was imported; yields the kinds of
    the calls that asked.
    """
    calls: list[str] = []

    class Kept:
        @staticmethod
        def apply(function: Any, preserve_rng_state: bool, *args: Any) -> Any:
            calls.append("reentrant")
            return function(*args)

    def kept(*args: Any, **kwargs: Any) -> Iterator[None]:
        calls.append("non-reentrant")
        yield

    # `checkpoint` looks both up in its module when it is called
    with replaced(
        torch.utils.checkpoint,
        CheckpointFunction=Kept,
        _checkpoint_without_reentrant_generator=kept,
    ):
        yield calls


@contextmanager
def counted_checkpointing() -> Iterator[list[str]]:
    """`torch.utils.checkpoint` as it is; yields the kinds of the calls."""
    calls: list[str] = []
    module = torch.utils.checkpoint
    function, generator = module.CheckpointFunction, module._checkpoint_without_reentrant_generator

    class Counted:
        @staticmethod
        def apply(*args: Any) -> Any:
            calls.append("reentrant")
            return function.apply(*args)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append("non-reentrant")
        return generator(*args, **kwargs)

    with replaced(
        module, CheckpointFunction=Counted, _checkpoint_without_reentrant_generator=counted
    ):
        yield calls


@contextmanager
def without_batch_statistics() -> Iterator[None]:
    """BatchNorm uses its running statistics, so that a clip's gradient does not depend on its
    neighbours in the batch.
    """
    batch_norm = F.batch_norm

    def steady(
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        # without running statistics there are only the batch's
        by_batch = training and running_mean is None
        return batch_norm(input, running_mean, running_var, weight, bias, by_batch, momentum, eps)

    with replaced(F, batch_norm=steady):
        yield


# --- precision ------------------------------------------------------------------------------------


@contextmanager
def in_fp32() -> Iterator[None]:
    """No autocast, and no cast to 16 bits by the code inside; the weights are the caller's to
    convert.
    """
    autocast = torch.amp.autocast_mode.autocast
    enter = autocast.__enter__

    def enter_disabled(self: Any) -> Any:
        self._enabled = False
        return enter(self)

    with replaced(autocast, __enter__=enter_disabled), _NoHalves():
        yield


@contextmanager
def masks_in_range() -> Iterator[None]:
    """Constants and mask values beyond the range of a 16-bit type become its largest; overflow of
    anything else stays.
    """
    with _MasksInRange():
        yield


class _NoHalves(TorchFunctionMode):
    """Every 16-bit dtype that is asked for becomes fp32."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.half, Tensor.bfloat16):
            func = Tensor.float
        wide = {name: _wide(value) for name, value in (kwargs or {}).items()}
        return func(*(_wide(value) for value in args), **wide)


def _wide(value: Any) -> Any:
    return torch.float32 if isinstance(value, torch.dtype) and value in HALVES else value


class _MasksInRange(TorchFunctionMode):
    """Python numbers of either sign, and what wide tensors hold below the range (masks are
    negative), are clamped.
    """

    FILLS = (Tensor.masked_fill, Tensor.masked_fill_, torch.masked_fill, torch.where)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        dtype = self._half_in_play(func, [*args, *kwargs.values()])
        if dtype is not None:
            limit = torch.finfo(dtype).max
            with torch._C.DisableTorchFunction():
                args = tuple(self._clamped(value, limit, func) for value in args)
                kwargs = {name: self._clamped(value, limit, func) for name, value in kwargs.items()}
        return func(*args, **kwargs)

    @staticmethod
    def _half_in_play(func: Any, values: list[Any]) -> torch.dtype | None:
        """The 16-bit type that a call works in, by its name, its arguments or autocast."""
        if func is Tensor.half:
            return torch.float16
        if func is Tensor.bfloat16:
            return torch.bfloat16
        for value in values:
            if isinstance(value, torch.dtype) and value in HALVES:
                return value
            if isinstance(value, Tensor) and value.dtype in HALVES:
                return value.dtype
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) in HALVES:
                return torch.get_autocast_dtype(device)
        return None

    def _clamped(self, value: Any, limit: float, func: Any) -> Any:
        if isinstance(value, Tensor):
            return self._clamped_tensor(value, limit)
        if self._is_number(value, func) and math.isfinite(value) and abs(value) > limit:
            return math.copysign(limit, value)
        return value

    def _is_number(self, value: Any, func: Any) -> bool:
        """Whole numbers are sizes and indices, but for those that something is filled with."""
        if isinstance(value, bool):
            return False
        return isinstance(value, float) or (isinstance(value, int) and func in self.FILLS)

    @staticmethod
    def _clamped_tensor(value: Tensor, limit: float) -> Tensor:
        if value.dtype not in WIDE or not value.numel():
            return value
        below = value < -limit
        if not bool(below.any()):
            return value
        return torch.where(below & value.isfinite(), torch.full_like(value, -limit), value)


# --- noise ----------------------------------------------------------------------------------------


class HeldNoise(TorchFunctionMode):
    """Every random tensor drawn inside is a function of its place alone: element (b, t, d) of the
    n-th draw of a kind is the same number however long the tensor is. Padding then changes no
    noise of what is valid, also where the model draws in the padded shape (flow matching, priors,
    dropout by hand). What it cannot hold still is noted in `not_held`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_drawn: dict[tuple[str, int], int] = {}  # (kind, axes) -> draws
        self.not_held: set[str] = set()

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SIZED:
            return self._drawn(_SIZED[func], _size_of(args, kwargs), kwargs)
        if func in _LIKE:
            return self._drawn(_LIKE[func], args[0].shape, kwargs, args[0])
        if func in (Tensor.normal_, Tensor.uniform_):
            return self._filled(func, *args, **_without_generator(kwargs))
        if func is torch.normal:
            return self._normal(*args, **_without_generator(kwargs))
        if func in (torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_):
            return self._bernoulli(func, *args, **_without_generator(kwargs))
        if func in _NOT_HELD:
            self.not_held.add(func.__name__)
        return func(*args, **kwargs)

    def _places(self, kind: str, shape: Any) -> Tensor:
        """Numbers in 0 … 1 of the next draw of this kind."""
        key = kind, len(shape)
        self.n_drawn[key] = self.n_drawn.get(key, 0) + 1
        return _by_place(tuple(shape), 1_009 * self.n_drawn[key] + len(kind))

    def _drawn(
        self, kind: str, shape: Any, kwargs: dict[str, Any], like: Tensor | None = None
    ) -> Tensor:
        dtype = kwargs.get("dtype") or (like.dtype if like is not None else None)
        device = kwargs.get("device") or (like.device if like is not None else None)
        drawn = self._places(kind, shape)
        values = _to_normal(drawn) if kind == "normal" else drawn
        return values.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def _filled(self, func: Any, tensor: Tensor, a: float | None = None, b: float = 1.0) -> Tensor:
        if func is Tensor.normal_:
            values = _to_normal(self._places("normal", tensor.shape)) * b + (a or 0.0)
        else:
            values = self._places("uniform", tensor.shape) * (b - (a or 0.0)) + (a or 0.0)
        return tensor.copy_(values)

    def _normal(self, mean: Any, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
        model = next((value for value in (mean, std) if isinstance(value, Tensor)), None)
        shape = model.shape if model is not None else size
        return self._drawn("normal", shape, kwargs, model) * std + mean

    def _bernoulli(self, func: Any, tensor: Tensor, p: Any = None) -> Tensor:
        share = tensor if p is None else p
        if isinstance(share, Tensor):
            share = share.float().cpu()
        drawn = (self._places("bernoulli", tensor.shape) < share).to(tensor)
        return tensor.copy_(drawn) if func is Tensor.bernoulli_ else drawn


_SIZED = {torch.randn: "normal", torch.rand: "uniform"}
_LIKE = {torch.randn_like: "normal", torch.rand_like: "uniform"}
_NOT_HELD = {
    Tensor.exponential_,
    Tensor.multinomial,
    Tensor.random_,
    torch.multinomial,
    torch.poisson,
    torch.randint,
    torch.randperm,
}


def _size_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, ...]:
    size = kwargs.get("size", args)
    if len(size) == 1 and not isinstance(size[0], int):
        size = size[0]
    return tuple(int(axis) for axis in size)


def _without_generator(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "generator"}


def _by_place(shape: tuple[int, ...], number: int) -> Tensor:
    """(shape) fp32 strictly between 0 and 1, each element mixed from its own index and `number`
    (the finaliser of MurmurHash3, 32 bits).
    """
    mixed = torch.full(shape, 0x9E3779B1 * number & 0xFFFFFFFF, dtype=torch.int64)
    for axis, size in enumerate(shape):
        along = [1] * len(shape)
        along[axis] = size
        index = torch.arange(size, dtype=torch.int64).view(along)
        mixed = _mix32(mixed + 0x85EBCA6B * (index + 1 + 7919 * axis))
    return (_mix32(mixed) >> 8).float().add(0.5) / 2**24


def _mix32(value: Tensor) -> Tensor:
    value = value & 0xFFFFFFFF
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return value ^ (value >> 16)


def _to_normal(uniform: Tensor) -> Tensor:
    return torch.erfinv(2 * uniform - 1) * math.sqrt(2)


# --- loss scalers ---------------------------------------------------------------------------------


@contextmanager
def kept_scalers(scale: float | None = None) -> Iterator[None]:
    """Every GradScaler used inside is afterwards as it was before; with `scale`, its loss scale is
    that number throughout.
    """
    kind = torch.amp.GradScaler
    first, update = kind.scale, kind.update
    known: dict[int, tuple[Any, dict[str, Any]]] = {}

    def hold(scaler: Any) -> None:
        if scale is not None and scaler.is_enabled():
            scaler._init_scale = scale
            if scaler._scale is not None:
                scaler._scale.fill_(scale)

    def seen(scaler: Any, outputs: Any) -> Any:
        if id(scaler) not in known:
            known[id(scaler)] = scaler, copy.deepcopy(vars(scaler))
            hold(scaler)
        return first(scaler, outputs)

    def updated(scaler: Any, *args: Any, **kwargs: Any) -> None:
        update(scaler, *args, **kwargs)
        hold(scaler)

    try:
        with replaced(kind, scale=seen, update=updated):
            yield
    finally:
        for scaler, state in known.values():
            vars(scaler).clear()
            vars(scaler).update(state)
