# SPDX-License-Identifier: Apache-2.0
"""Which device computes, and in which precision."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import torch

from barl.errors import DeviceError
from barl.torch_support import (
    LOWEST,
    LOWEST_ON_APPLE,
    WITHOUT_TORCH,
    is_too_old,
    reason_against,
    slow_in_half_precision,
)

# Names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str = "auto") -> torch.device:
    """Turn a user's choice into a device that is there; the C library is made ready for long work on a CPU.

    Args:
        name: ``"auto"`` (CUDA, else Apple's MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

    Raises:
        DeviceError: No such device on this machine, or not a device's name; or PyTorch is too old.
    """
    if is_too_old(torch.__version__):
        raise DeviceError(
            reason_against() or f"PyTorch {torch.__version__} is too old: {LOWEST} or newer is needed.",
            WITHOUT_TORCH if reason_against() else "Update it: in Slicer in the step Setup, elsewhere with pip.",
        )
    device = _existing_device(name)
    if device.type == "cpu":
        _keep_freed_memory()
        _start_threads()
    return device


def _existing_device(name: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if mps and is_too_old(torch.__version__, LOWEST_ON_APPLE):
        if name == "mps":
            raise DeviceError(
                f"PyTorch {torch.__version__} lacks transposed 3D convolutions on Apple's graphics.",
                f"Update it to {LOWEST_ON_APPLE} or newer, or choose cpu.",
            )
        mps = False
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    found = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count() if cuda else 0)), *(["mps"] if mps else [])]
    remedy = f"Choose one of: auto, {', '.join(found)}."
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f'"{name}" is not the name of a computing device.', remedy) from error
    exact = "cuda:0" if str(device) == "cuda" else str(device)
    if exact not in found:
        raise DeviceError(f'There is no device "{name}" on this machine.', remedy)
    return device


def _start_threads() -> None:
    """Have OpenMP start its threads: where a scan has filled the memory, it would end the process instead."""
    torch.ones(2**17).sum()  # large enough to be divided among all threads


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Half precision that this device computes in hardware, or None for float32.

    CUDA: bfloat16, on older cards with tensor cores float16. CPU: bfloat16 with AMX or AVX512-BF16 only (measured twice
    as fast as float32 there); where it would be emulated it is many times slower. MPS: float32, for PyTorch has no
    transposed 3D convolution in half precision there (pytorch issue 160739).
    """
    if device.type == "cuda":
        if half_precision_trouble():
            return None
        capability = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else None
    if device.type == "cpu" and (_cpu_has("_is_amx_tile_supported") or _cpu_has("_is_avx512_bf16_supported")):
        return torch.bfloat16
    return None


def half_precision_trouble() -> str:
    """A sentence if the PyTorch that runs is slow in half precision on CUDA; empty if not."""
    number = torch.backends.cudnn.version() or 0  # 91002 is 9.10.2
    cudnn = f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number else ""
    return slow_in_half_precision(torch.__version__, torch.version.cuda, cudnn)


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Context in which networks compute in ``dtype``; in float32 if it is None."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def _cpu_has(query: str) -> bool:
    """Whether the CPU has a feature; not all supported versions of torch have a public function for it."""
    ask = getattr(torch.cpu, query, None)
    return bool(ask and ask())


@cache
def _keep_freed_memory() -> None:
    """Let glibc keep up to 1 GiB of freed memory and use it again, instead of asking the kernel for zeroed pages.

    A network's layers free and ask for the same tens of megabytes in every call. Predicting windows of 96 x 96 x 96 on
    a CPU takes 27 % less time so, training on small patches 4 % (one core). Larger blocks still go back at once.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 128 * 2**20)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def give_back_freed_memory() -> None:
    """Give back at once what ``_keep_freed_memory`` keeps: between the steps of a scan that fills the memory."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
