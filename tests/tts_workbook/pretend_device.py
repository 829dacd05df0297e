"""A second device without the hardware: its tensors compute on the CPU, and refuse to meet CPU
tensors as those of a GPU do. For a process of its own: the backend's name is global.
"""

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_flatten, tree_map

NAME = "far"
# what takes tensors of two devices on a GPU too
MIXED = {
    "aten::_to_copy",
    "aten::copy_",
    "aten::index",
    "aten::index_put",
    "aten::index_put_",
    "aten::_index_put_impl_",
    "aten::_unsafe_index",
}


class Backend(backend_registration._DummyBackendModule):
    """What torch asks of a device's module."""

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        pass

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]


class Far(Tensor):
    """A tensor on the pretended device; `near` is where it really lies."""

    @staticmethod
    def __new__(cls, near, requires_grad=False):
        far = Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            layout=near.layout,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        far.near = near
        return far

    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self):
        return self.near.tolist()

    def __repr__(self):
        return f"Far({self.near})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def near(value):
    return value.near if isinstance(value, Far) else value


def computed(func, args, kwargs):
    """One operator, on the CPU; its result lies where a GPU's would."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    far = [tensor for tensor in tensors if isinstance(tensor, Far)]
    others = [tensor for tensor in tensors if not isinstance(tensor, Far) and tensor.dim()]
    if far and others and func._schema.name not in MIXED:
        raise RuntimeError(f"expected all tensors to be on the same device: {func}")
    device = kwargs.get("device")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    with _disable_current_modes():
        result = func(*tree_map(near, args), **tree_map(near, kwargs))
    if func._schema.name == "aten::copy_":
        lies_far = isinstance(args[0], Far)
    elif device is not None:
        lies_far = torch.device(device).type == NAME
    else:
        lies_far = bool(far)
    if not lies_far:
        return result
    known = {id(tensor.near): tensor for tensor in far}

    def wrapped(value):
        if not isinstance(value, Tensor) or isinstance(value, Far):
            return value
        return known.get(id(value)) if id(value) in known else Far(value)

    return return_and_correct_aliasing(func, args, kwargs, tree_map(wrapped, result))


class Pretending(TorchDispatchMode):
    """Inside, what is made on the device "far" lies there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return Far(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _copy_from(source, target, non_blocking=False):
    near(target).copy_(near(source))
    return target


def register():
    """Make torch know the device; the library has to be kept for as long as it is used."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    return library


def to_far(model: nn.Module) -> nn.Module:
    """The model itself with every parameter and buffer on the pretended device."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                moved = Far(parameter.detach().clone())
                module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Far(buffer.clone())
    return model
