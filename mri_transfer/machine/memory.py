"""How much memory a training may take: what is free, less what the system needs to stay alive.

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

# Left to the system, as a share of the machine's memory and at least: a desktop, ssh, and the disk's cache.
RESERVED_SHARE, RESERVED_BYTES = 0.08, 400e6
# What Python, TensorFlow or JAX and CUDA take for themselves beside a device's memory, where both are one. An estimate.
PROCESS_BYTES = 1.5e9


def _bytes(path: Path) -> int | None:
    """A number in a file; "max" and what can't be read are none."""
    text = read_text(path)
    return int(text) if text.isdigit() else None


def _meminfo(root: Path) -> dict[str, int]:
    lines = re.findall(r"^(\w+):\s+(\d+) kB", read_text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in lines}


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of every control group that this process is in and that has a limit, in bytes.

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
        # A container sees its own group as the root, whatever the path says; a limit further up counts too.
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
    """Memory of the machine or of the container; None where the system doesn't tell."""
    totals = [limit for limit, _ in _cgroups(Path(root))]
    machine = _meminfo(Path(root)).get("MemTotal")
    return min([*totals, machine]) if machine is not None else None


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process can still take, in bytes; None where the system doesn't tell.

    Args:
        root: of the file system.
    """
    root = Path(root)
    machine = _meminfo(root).get("MemAvailable")
    if machine is None:
        return None
    return max(0, min([machine, *(limit - used for limit, used in _cgroups(root))]))


def default_limit(root: Path = Path("/")) -> int | None:
    """What a training may take unless told otherwise: what is available, less a reserve for the system.

    Called before anything big is loaded, since what this process holds already counts as used.
    """
    total, available = total_bytes(root), available_bytes(root)
    if total is None or available is None:
        return None
    return max(0, round(available - max(RESERVED_BYTES, RESERVED_SHARE * total)))


def is_shared_with_gpu(root: Path = Path("/")) -> bool:
    """Whether this is a board on which processor and GPU share their memory."""
    return read_board(root) is not None


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for memory since it was started; None where it doesn't count."""
    match = re.search(r"^oom_kill (\d+)$", read_text(Path(root) / "proc/vmstat"), re.MULTILINE)
    return int(match[1]) if match else None


def boot_id(root: Path = Path("/")) -> str:
    """Changes whenever the machine is started."""
    return read_text(Path(root) / "proc/sys/kernel/random/boot_id")
