"""How much memory training may take: what is free, less what the system needs to stay alive.

    /proc/meminfo                                    the whole machine
    /sys/fs/cgroup/.../memory.max, memory.current    limits of containers and services (cgroup v2)
    /sys/fs/cgroup/memory/.../memory.limit_in_bytes, memory.usage_in_bytes    the same, version 1

The kernel's names: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mri_transfer.machine.boards import read_board
from mri_transfer.machine.kernel import read_text

# Reserved for the system (desktop, ssh, disk cache): a share of the machine's memory, and a minimum.
RESERVED_SHARE, RESERVED_BYTES = 0.08, 400e6
# Estimated overhead of Python, TensorFlow or JAX, and CUDA beside device memory, where the two are shared.
PROCESS_BYTES = 1.5e9


def _bytes(path: Path) -> int | None:
    """The number in a file; None for "max" or an unreadable file."""
    text = read_text(path)
    return int(text) if text.isdigit() else None


def _meminfo(root: Path) -> dict[str, int]:
    lines = re.findall(r"^(\w+):\s+(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in lines}


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of each of this process's control groups that has a limit, in bytes.

    Cached files count as used, but the kernel gives them up when memory is short; they are subtracted.
    """
    names = (
        # hierarchy in /proc/self/cgroup, where it is mounted, limit, usage, entry of memory.stat
        ("", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("", "sys/fs/cgroup/unified", "memory.max", "memory.current", "inactive_file"),
        (
            "memory",
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    )
    member = re.findall(r"^\d+:([^:]*):(.*)$", read_text(root / "proc/self/cgroup"), re.MULTILINE)
    for hierarchy, mount, limit_name, usage_name, inactive in names:
        paths = [path for controllers, path in member if hierarchy in controllers.split(",")]
        # A container sees its own group as the root, whatever the path says; limits further up also apply.
        for path in paths or ["/"]:
            inner = PurePosixPath(path.lstrip("/"))
            for folder in (inner, *inner.parents):
                group = root / mount / folder
                limit, usage = _bytes(group / limit_name), _bytes(group / usage_name)
                if limit is None or usage is None:
                    continue
                cached = re.search(rf"^{inactive} (\d+)$", read_text(group / "memory.stat"), re.MULTILINE)
                yield limit, max(0, usage - (int(cached[1]) if cached else 0))


def total_bytes(root: Path = Path("/")) -> int | None:
    """Memory of the machine or container; None if the system doesn't report it."""
    totals = [limit for limit, _ in _cgroups(Path(root))]
    machine = _meminfo(Path(root)).get("MemTotal")
    return min([*totals, machine]) if machine is not None else None


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory this process can still take, in bytes; None if the system doesn't report it.

    Args:
        root: the file system's.
    """
    root = Path(root)
    machine = _meminfo(root).get("MemAvailable")
    if machine is None:
        return None
    return max(0, min([machine, *(limit - used for limit, used in _cgroups(root))]))


def default_limit(root: Path = Path("/")) -> int | None:
    """Default memory limit for training: what is available, less a reserve for the system.

    Call it before loading anything big, since memory this process already holds counts as used.
    """
    total, available = total_bytes(root), available_bytes(root)
    if total is None or available is None:
        return None
    return max(0, round(available - max(RESERVED_BYTES, RESERVED_SHARE * total)))


def is_shared_with_gpu(root: Path = Path("/")) -> bool:
    """Whether this is a board whose CPU and GPU share memory."""
    return read_board(root) is not None


def oom_kills(root: Path = Path("/")) -> int | None:
    """Number of processes the kernel has OOM-killed since boot; None if it doesn't count."""
    match = re.search(r"^oom_kill (\d+)$", read_text(Path(root) / "proc/vmstat"), re.MULTILINE)
    return int(match[1]) if match else None


def boot_id(root: Path = Path("/")) -> str:
    """Changes with every boot."""
    return read_text(Path(root) / "proc/sys/kernel/random/boot_id")
