"""What a figure was measured on, and how busy the machine was meanwhile."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

__all__ = ["cpu_seconds", "machine_facts", "peak_rss_gb", "read_bandwidth", "wait_until_idle"]


def machine_facts() -> dict[str, Any]:
    """CPU, cores, memory, versions; the read bandwidth is measured apart."""
    return {
        "cpu": _proc_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": _kib_to_gb(_proc_value("/proc/meminfo", "MemTotal")),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def read_bandwidth(n_bytes: int = 2**30, repeats: int = 8) -> float:
    """GB/s at which all threads together read memory once.

    The best of several float32 matrix-vector products, the fastest reader PyTorch has.
    """
    matrix = torch.ones(n_bytes // 4 // 4096, 4096)
    vector = torch.ones(4096)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mv(matrix, vector)
        best = min(best, time.perf_counter() - started)
    return n_bytes / best / 1e9


def peak_rss_gb() -> float:
    """Peak resident memory of this process so far."""
    return _kib_to_gb(_proc_value("/proc/self/status", "VmHWM")) or 0.0


def cpu_seconds() -> tuple[float, float]:
    """CPU time used so far by the whole machine and by this process; (0, 0) where /proc is missing."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0, 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    everybody = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    return everybody, times.user + times.system


def wait_until_idle(patience_s: float, *, busy_cpus: float = 0.15) -> None:
    """Returns once other processes have used hardly any CPU for two seconds, or when patience is at an end.

    One busy neighbour more than doubles a frame: two threads that share a loop wait for each other.
    """
    deadline = time.perf_counter() + patience_s
    while time.perf_counter() < deadline:
        everybody, own = cpu_seconds()
        time.sleep(2.0)
        everybody_after, own_after = cpu_seconds()
        if (everybody_after - everybody) - (own_after - own) < 2.0 * busy_cpus:
            return


def _proc_value(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def _kib_to_gb(value: str | None) -> float | None:
    return None if value is None else round(int(value.split()[0]) * 1024 / 1e9, 2)
