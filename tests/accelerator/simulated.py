"""A device `sim` that behaves like a GPU and computes on the CPU; what would fail on a GPU for its device fails here.

As a plugin of pytest (`pytest -p tests.accelerator.simulated FILE`) it makes Accelerate choose this device. As on a GPU:
tensors of two devices in one operation are refused, a tensor does not become an array, a generator of the CPU draws nothing,
random numbers have a stream of their own, autocast rounds matrix products, and with torch.use_deterministic_algorithms what
has no deterministic kernel in CUDA is refused. Not as on a GPU: speed, memory, and the rounding of kernels.

Built on torch's backend in Python (torch.utils.backend_registration): every operation arrives in `_run`.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
DEVICE = torch.device("privateuseone:0")  # its name is "sim" once the backend is set up
RAN: Counter[str] = Counter()
"""How often each operation ran on the device."""
_COPIES = {aten._to_copy.default, aten.copy_.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_WITHOUT_SCALARS = {aten.cat, aten.stack}
"""These take no tensor of another device, not even one of a single number."""
_NO_DETERMINISTIC_KERNEL = {
    aten.avg_pool3d_backward, aten._adaptive_avg_pool2d_backward, aten._adaptive_avg_pool3d_backward,
    aten.adaptive_max_pool2d_backward, aten.fractional_max_pool2d_backward, aten.fractional_max_pool3d_backward,
    aten.max_unpool2d, aten.max_unpool3d, aten.upsample_linear1d_backward, aten.upsample_bilinear2d_backward,
    aten.upsample_bicubic2d_backward, aten.upsample_trilinear3d_backward, aten.reflection_pad1d_backward,
    aten.reflection_pad2d_backward, aten.reflection_pad3d_backward, aten.nll_loss2d_forward, aten._ctc_loss_backward,
    aten.put_, aten.histc, aten.median, aten.grid_sampler_2d_backward, aten.grid_sampler_3d_backward,
}  # fmt: skip
"""From the documentation of torch.use_deterministic_algorithms; `cumsum` is among them for floats only."""
_ROUNDED = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv1d", "conv2d", "scaled_dot_product_attention")
"""Autocast casts the inputs of these; there are more, which no stage uses."""


class SimulatedTensor(torch.Tensor):
    """Says that it lies on `sim`; its values are those of `host`, a tensor of the CPU."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> SimulatedTensor:
        tensor: SimulatedTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype, device=DEVICE
        )
        tensor.host = host
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(function, args, kwargs or {})

    # What torch forbids to subclasses, but not to tensors on a GPU:
    def tolist(self) -> Any:
        return self.host.tolist()

    def __format__(self, spec: str) -> str:
        return format(self.host, spec)

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    def data_ptr(self) -> int:
        return self.host.data_ptr()


class _Module:
    """`torch.sim`: one device, with a stream of random numbers of its own."""

    state = torch.Generator().manual_seed(0).get_state()

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    def get_rng_state(self, device: Any = None) -> Tensor:
        return self.state.clone()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        self.state = state.clone()

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_module = _Module()


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    ours = [leaf for leaf in leaves if isinstance(leaf, SimulatedTensor)]
    target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else DEVICE if ours else torch.device("cpu")
    if ours and function not in _COPIES:
        _check_same_device(function, args, leaves)
    on_device = target.type == DEVICE.type
    if on_device:
        RAN[str(function)] += 1
        _check_kernel(function, leaves)
    host_args, host_kwargs = tree_map_only(SimulatedTensor, lambda tensor: tensor.host, (args, kwargs))
    if "device" in host_kwargs:
        host_kwargs = host_kwargs | {"device": torch.device("cpu")}
    found = _with_own_stream(function, host_args, host_kwargs, on_device)
    known = {id(tensor.host): tensor for tensor in ours}  # what an operation changes in place it also returns

    def wrapped(tensor: Tensor) -> Tensor:
        if not on_device:
            return tensor
        return known[id(tensor)] if id(tensor) in known else SimulatedTensor(tensor)

    return tree_map_only(torch.Tensor, wrapped, found)


def _check_same_device(function: Any, args: Any, leaves: list[Any]) -> None:
    strangers = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, SimulatedTensor)]
    if function in _INDEXED:  # an index may lie on the CPU
        strangers = [] if isinstance(args[0], SimulatedTensor) else [args[0]]
    if any(stranger.dim() or function.overloadpacket in _WITHOUT_SCALARS for stranger in strangers):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, sim and cpu: {function}"
        )


def _check_kernel(function: Any, leaves: list[Any]) -> None:
    if any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"Expected a 'sim' device type for generator but found 'cpu': {function}")
    floats = any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves)
    packet = function.overloadpacket
    if torch.are_deterministic_algorithms_enabled() and (
        packet in _NO_DETERMINISTIC_KERNEL or (packet is aten.cumsum and floats)
    ):
        raise RuntimeError(f"{function} does not have a deterministic implementation")


def _with_own_stream(function: Any, args: Any, kwargs: Any, on_device: bool) -> Any:
    if not (on_device and torch.Tag.nondeterministic_seeded in function.tags):
        return function(*args, **kwargs)
    before = torch.get_rng_state()
    torch.set_rng_state(_module.state)
    try:
        return function(*args, **kwargs)
    finally:
        _module.state = torch.get_rng_state()
        torch.set_rng_state(before)


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    getattr(target, "host", target).copy_(getattr(source, "host", source))
    return target


def _rounding(function: Any) -> Any:
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype("sim")
        with torch._C._ExcludeDispatchKeyGuard(key):
            cast = tree_map_only(torch.Tensor, lambda x: x.to(dtype) if x.dtype == torch.float32 else x, (args, kwargs))
            return function(*cast[0], **cast[1])

    return kernel


def _set_up() -> list[torch.library.Library]:
    _setup_privateuseone_for_python_backend("sim", backend_module=_module)
    library, every = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    for name, function in (("empty.memory_format", aten.empty.memory_format), ("empty_strided", aten.empty_strided.default)):
        library.impl(name, lambda *args, _function=function, **kwargs: _run(_function, args, kwargs), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    for name in _ROUNDED:
        library.impl(name, _rounding(getattr(aten, name).default), "AutocastPrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return [library, every]  # they hold for as long as somebody holds them


def _choose_for_accelerate() -> None:
    original = Accelerator.__init__

    def choose(self: Accelerator, *args: Any, cpu: bool = False, **kwargs: Any) -> None:
        original(self, *args, **kwargs)

    Accelerator.__init__ = choose  # type: ignore[method-assign]
    os.environ["ACCELERATE_TORCH_DEVICE"] = "sim:0"
    # A parameter stays the object it is when its network moves, as it does between CPU and GPU.
    torch.__future__.set_swap_module_params_on_conversion(True)


_LIBRARIES = _set_up()
_choose_for_accelerate()
