"""Limits of machines and containers, from trees like theirs; and a real one where a control group can be made."""

import subprocess
import sys
from pathlib import Path

import pytest

from mri_transfer.machine import device, memory

GIB = 2**30


def machine(root, total_gib, available_gib, **files):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal:       {int(total_gib * 2**20)} kB\nMemFree:          100000 kB\n"
        f"MemAvailable:   {int(available_gib * 2**20)} kB\n"
    )
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root


def test_a_machine_without_limits(tmp_path):
    root = machine(tmp_path, 8, 6)
    assert memory.total_bytes(root) == 8 * GIB
    assert memory.available_bytes(root) == 6 * GIB
    assert memory.default_limit(root) == pytest.approx(6 * GIB - 0.08 * 8 * GIB)
    assert memory.default_limit(tmp_path / "no proc") is None


def test_a_small_board_keeps_a_fixed_reserve(tmp_path):
    root = machine(tmp_path, 2, 1.5)
    assert memory.default_limit(root) == pytest.approx(1.5 * GIB - 400e6, abs=1)


def test_a_service_with_a_limit_further_up(tmp_path):
    """cgroup v2: the group itself has none ("max"), the slice that it is in has one, part of it cached files."""
    group = "sys/fs/cgroup/user.slice"
    files = {
        "proc/self/cgroup": "0::/user.slice/session-1.scope\n",
        f"{group}/session-1.scope/memory.max": "max\n",
        f"{group}/session-1.scope/memory.current": GIB,
        f"{group}/memory.max": 4 * GIB,
        f"{group}/memory.current": 3 * GIB,
        f"{group}/memory.stat": f"anon {GIB}\ninactive_file {2 * GIB}\nactive_file 7\n",
    }
    root = machine(tmp_path, 16, 12, **files)
    assert memory.total_bytes(root) == 4 * GIB
    assert memory.available_bytes(root) == 3 * GIB


@pytest.mark.parametrize("inside", [True, False])
def test_a_container_of_version_1(tmp_path, inside):
    """A container's /proc names the group as the host sees it; its own /sys shows that group as the root."""
    files = {
        "proc/self/cgroup": "9:name=systemd:/x\n5:memory:/docker/0123abc\n1:cpu,cpuacct:/docker/0123abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 2 * GIB if inside else 2**63 - 4096,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB if inside else 9 * GIB,
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB // 2}\n",
    }
    if not inside:
        files |= {
            "sys/fs/cgroup/memory/docker/0123abc/memory.limit_in_bytes": 2 * GIB,
            "sys/fs/cgroup/memory/docker/0123abc/memory.usage_in_bytes": GIB,
            "sys/fs/cgroup/memory/docker/0123abc/memory.stat": f"total_inactive_file {GIB // 2}\n",
        }
    root = machine(tmp_path, 16, 12, **files)
    assert memory.total_bytes(root) == 2 * GIB
    assert memory.available_bytes(root) == 1.5 * GIB


def test_a_jetson_is_known_by_its_files(tmp_path):
    root = machine(tmp_path, 8, 6)
    assert not memory.is_shared_with_gpu(root)
    (root / "proc/device-tree").mkdir()
    (root / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\x00")
    assert memory.is_shared_with_gpu(root)


def test_the_kernels_own_figures_are_understood():
    if not Path("/proc/meminfo").is_file():
        pytest.skip("no /proc")
    total, available = memory.total_bytes(), memory.available_bytes()
    assert total is not None
    assert available is not None
    assert 0 < available < total


def test_a_real_control_group_is_seen(tmp_path):
    group = Path("/sys/fs/cgroup/memory/mri-transfer-test")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("needs the right to make a control group of version 1")
    try:
        (group / "memory.limit_in_bytes").write_text(str(GIB))
        code = (
            f"open('{group}/cgroup.procs', 'w').write('0')\n"
            "from mri_transfer.machine import memory; print(memory.total_bytes(), memory.available_bytes())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        total, available = map(int, done.stdout.split())
        assert total == GIB
        assert 0.5 * GIB < available < GIB
    finally:
        group.rmdir()


def test_a_board_that_shares_its_memory_gets_a_limit(monkeypatch):
    monkeypatch.setattr(memory, "is_shared_with_gpu", lambda: True)
    monkeypatch.setattr(memory, "default_limit", lambda: 6e9)
    monkeypatch.setattr(device, "_memory_limit", None)  # whatever a test before this one has set
    assert device._shared_memory_limit() == 6e9 - memory.PROCESS_BYTES
    monkeypatch.setattr(device, "_memory_limit", 3e9)
    assert device._shared_memory_limit() == 1.5e9
    monkeypatch.setattr(memory, "is_shared_with_gpu", lambda: False)
    assert device._shared_memory_limit() is None
