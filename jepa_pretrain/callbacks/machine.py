"""What a run ran on: packages, processor, memory, GPUs, threads, and the switches that change a sum's last bit."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "jepa-pretrain", "torch", "torchvision", "timm", "lightning", "numpy", "pillow", "webdataset", "torchmetrics",
    "safetensors", "jsonargparse",
)  # fmt: skip


def packages() -> dict[str, str]:
    """Versions of everything that computes, reads or configures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was not installed
            found[name] = "not installed"
    found["torch"] = str(torch.__version__)  # with the kind of build, which its metadata lack
    return found | {"cuda": torch.version.cuda or "none", "cudnn": str(torch.backends.cudnn.version() or "none")}


def hardware() -> dict[str, object]:
    """Processor, memory and GPUs of this machine."""
    return {
        "system": platform.platform(),
        "cpu": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),  # which kernels torch takes: AVX2, AVX512, ...
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory(),
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())],
    }


def arithmetic() -> dict[str, object]:
    """What changes the order or the precision of sums, and with it their last bits."""
    return {
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul": torch.get_float32_matmul_precision(),
    }


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError):  # a system that does not say
        return None


def _gpu(number: int) -> dict[str, object]:
    found = torch.cuda.get_device_properties(number)
    return {
        "name": found.name,
        "memory_gib": round(found.total_memory / 2**30, 1),
        "capability": f"{found.major}.{found.minor}",
    }
