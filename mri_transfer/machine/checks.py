"""The doctor's checks: each function reads one aspect of a machine and yields its findings.

All take the root of a file system, so they can also read a copy of another machine's files:

    /proc/meminfo, /proc/swaps, /proc/[0-9]*/comm    memory, swap, and whether a desktop is running
    /var/lib/nvpmodel/status, /etc/nvpmodel.conf     a Jetson's power mode (as `nvpmodel -q` shows), and all modes
    /sys/class/thermal, /sys/class/hwmon             see `hardware.py`; fans: pwm1 (0 to 255), before JetPack 5 cur_pwm
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mri_transfer.machine import device, memory
from mri_transfer.machine.boards import FAMILIES, Board
from mri_transfer.machine.hardware import EARLIEST_SANE_CLOCK, Hardware
from mri_transfer.machine.kernel import read_text
from mri_transfer.words import size_in_words

GOOD, ADVICE, PROBLEM = "good", "advice", "problem"

HOT_C = 80.0
ROOM_BYTES = 10e9  # a store of a few thousand volumes, two generations of a run, and room for the system
SLOW_DISK = 20e6  # bytes a second; a checkpoint of 60 MB should take seconds, not minutes
LEAST_MEMORY = 3.0e9  # measured: 64 pairs of 160 px, 16 at once, take 2.4 GB
SMALL_MEMORY = 17e9  # boards of up to 16 GB
TEST_FILE_BYTES = 64 * 2**20
# Run in a separate process, so that this one stays small and a crash is only a finding.
PROBE = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
found = {"backend": keras.backend.backend(), "keras": keras.__version__}
if found["backend"] == "tensorflow":
    import tensorflow as tf
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    found.update(version=tf.__version__, cuda=bool(tf.test.is_built_with_cuda()), gpus=details)
else:
    import jax
    found.update(version=jax.__version__, cuda=True)
    found["gpus"] = [d.device_kind for d in jax.devices() if d.platform != "cpu"]
print("FOUND " + json.dumps(found), flush=True)
some = keras.ops.ones((256, 256))
print("COMPUTED", float(keras.ops.sum(some @ some)))
"""
PROBE_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        topic: "board", "software", "memory", "power", "heat", "disk", "clock" or "speed".
        level: GOOD, ADVICE (works, but could be better) or PROBLEM (will fail or waste a night).
        text: the finding, with its figure.
        remedy: what to do about it, in one sentence; empty if all is well.
    """

    topic: str
    level: str
    text: str
    remedy: str = ""


def machine_name(root: Path, board: Board | None) -> str:
    """Name of the board or processor."""
    if board:
        return board.model
    match = re.search(r"^model name\s*:\s*(.+)$", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    return match[1].strip() if match else "unknown machine"


def of_board(board: Board | None) -> Iterator[Finding]:
    """Findings on the board and its JetPack."""
    if board is None:
        yield Finding("board", GOOD, "not a Jetson")
        return
    if board.l4t is None:
        yield Finding(
            "board",
            ADVICE,
            f"{board.model}; which JetPack it runs can't be read from /etc/nv_tegra_release",
            "look it up with `apt show nvidia-jetpack`, and compare it with the table of boards in the documentation",
        )
        return
    family, text = board.family, f"{board.model}, Jetson Linux {board.l4t}"
    if family is None:
        jetpacks = ", ".join(f"{f.jetpack} (L4T {f.l4t})" for f in FAMILIES)
        yield Finding(
            "board",
            PROBLEM,
            f"{text}: a release that this program doesn't know",
            f"install a JetPack of {jetpacks}",
        )
        return
    text += (
        f" (JetPack {board.jetpack}, Python {family.python}, NVIDIA's newest TensorFlow: {family.tensorflow})"
    )
    if not family.keras3:
        yield Finding("board", PROBLEM, text, family.how)
    elif family.tensorflow == "none":
        yield Finding("board", ADVICE, text, family.how)
    else:
        yield Finding("board", GOOD, text)


def probe() -> dict[str, Any]:
    """Backend, versions and GPUs as a fresh interpreter finds them, or {"error": its last line}.

    "computes" is the outcome of a matrix product: "" if it worked, else the reason. A build may see a device that it
    has no code for, and then the process may be killed.
    """
    try:
        process = subprocess.run(
            [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_SECONDS} s"}
    lines = process.stderr.strip().splitlines()
    why = lines[-1] if lines else f"exit code {process.returncode}"
    if process.returncode < 0:
        why = f"the interpreter was ended by signal {-process.returncode}"
    match = re.search(r"^FOUND (.*)$", process.stdout, re.MULTILINE)
    if not match:
        return {"error": why}
    return json.loads(match[1]) | {"computes": "" if "COMPUTED" in process.stdout else why}


def has_nvidia_gpu(root: Path) -> bool:
    """Whether the kernel driver of a desktop GPU is loaded."""
    return (root / "proc/driver/nvidia/version").is_file()


def of_software(
    software: Mapping[str, Any], board: Board | None, root: Path = Path("/")
) -> Iterator[Finding]:
    """Whether the installed TensorFlow or JAX starts and sees the GPU."""
    if "error" in software:
        yield Finding(
            "software",
            PROBLEM,
            f"Keras can't be imported: {software['error']}",
            "install this program into a fresh environment: python3 -m venv .venv && .venv/bin/pip install .",
        )
        return
    text = f"Python {sys.version_info[0]}.{sys.version_info[1]}, Keras {software['keras']} on {software['backend']}"
    text += f" {software['version']}"
    if why := software.get("computes"):
        remedy = "install this program into a fresh environment"
        if board is not None and software["backend"] == "jax":
            remedy = (
                "JAX from PyPI has no code for an Orin's GPU (sm_87, github.com/jax-ml/jax/issues/40487): unset "
                "KERAS_BACKEND and use NVIDIA's TensorFlow, or build JAX for sm_87"
            )
        yield Finding("software", PROBLEM, f"{text}, which can't compute: {why}", remedy)
        return
    if software["gpus"]:
        yield Finding("software", GOOD, f"{text}, which sees {', '.join(software['gpus'])}")
        return
    if board is not None:
        build = board.family.tensorflow if board.family else "none"
        if software["backend"] == "tensorflow" and "+nv" not in _tensorflow_build() and build != "none":
            remedy = (
                f"install NVIDIA's build {build} (`pip install -r requirements-jetson.txt` in a fresh environment); "
                "that of PyPI runs on the processor only"
            )
        else:
            remedy = "add the user to the group video, and install CUDA: sudo apt install nvidia-jetpack"
        yield Finding("software", PROBLEM, f"{text}, which does not see this board's GPU", remedy)
    elif has_nvidia_gpu(root):
        remedy = (
            "pip install 'tensorflow[and-cuda]'"
            if software["backend"] == "tensorflow"
            else "pip install 'jax[cuda13]' (cuda12 for a driver below 580)"
        )
        yield Finding("software", PROBLEM, f"{text}, which does not see this machine's NVIDIA GPU", remedy)
    else:
        yield Finding(
            "software", GOOD, f"{text}; there is no GPU, so {device.cores()} processor cores do the work"
        )


def _tensorflow_build() -> str:
    try:
        return importlib.metadata.version("tensorflow")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _swaps(root: Path) -> list[tuple[str, int]]:
    """Name and size in bytes of every swap device or file."""
    lines = read_text(root / "proc/swaps").splitlines()[1:]
    return [(words[0], int(words[2]) * 1024) for line in lines if len(words := line.split()) >= 4]


def of_memory(root: Path, board: Board | None) -> Iterator[Finding]:
    """Total and free memory, and what happens when it runs short."""
    total, available = memory.total_bytes(root), memory.available_bytes(root)
    if total is None or available is None:
        yield Finding(
            "memory",
            ADVICE,
            "the amount can't be read from /proc/meminfo",
            "give --memory GB to pretrain, so that it takes no more than there is",
        )
        return
    shared = " shared with the GPU" if board else ""
    amounts = f"{size_in_words(total)}{shared}, {size_in_words(available)} free"
    if available < LEAST_MEMORY:
        yield Finding(
            "memory",
            PROBLEM,
            f"{amounts}; a night at 160 px needs {size_in_words(LEAST_MEMORY)}",
            "close other programs, and the desktop: sudo systemctl isolate multi-user.target",
        )
    else:
        yield Finding("memory", GOOD, amounts)
    desktop = sorted({"Xorg", "gnome-shell", "Xwayland", "lxpanel"} & set(_programs(root)))
    if desktop and total < SMALL_MEMORY and shared:
        yield Finding(
            "memory",
            ADVICE,
            f"a desktop is running ({', '.join(desktop)})",
            "it takes about 1 GB; end it for the night: sudo systemctl isolate multi-user.target",
        )
    swaps = _swaps(root)
    on_disk = [(name, size) for name, size in swaps if "zram" not in name]
    if on_disk:
        yield Finding("memory", GOOD, f"swap of {size_in_words(sum(size for _, size in on_disk))} on disk")
    elif total < SMALL_MEMORY:
        text = "no swap" if not swaps else "swap in zram only, which lies in the same memory"
        yield Finding(
            "memory",
            ADVICE,
            f"{text}: if memory runs short for a moment, a program is killed",
            "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && "
            "sudo swapon /swapfile",
        )


def _programs(root: Path) -> Iterator[str]:
    for path in (root / "proc").glob("[0-9]*/comm"):
        name = read_text(path)
        if name:
            yield name


def of_power(root: Path) -> Iterator[Finding]:
    """The power mode of a Jetson, and whether a faster one exists."""
    hardware = Hardware(root)
    mode = hardware.read().get("power_mode") or (_asked_mode() if root == Path("/") else None)
    modes = hardware.power_modes
    if mode is None:
        return
    best = fastest_mode(modes)
    if best is None or modes[best] == mode:
        yield Finding("power", GOOD, f"power mode {mode}")
        return
    yield Finding(
        "power",
        ADVICE,
        f"power mode {mode}; {modes[best]} is faster",
        f"sudo nvpmodel -m {best} (needs a fan and the power supply that came with the board)",
    )


def _asked_mode() -> str | None:
    """The power mode from NVIDIA's tool, if its status file can't be read."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    try:
        output = subprocess.run([tool, "-q"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"NV Power Mode:\s*(\S+)", output)
    return match[1] if match else None


def fastest_mode(modes: Mapping[str, str]) -> str | None:
    """Number of the unlimited mode (MAXN, MAXN_SUPER), or else the one with the most watts; None without modes."""

    def rank(number: str) -> tuple[bool, bool, int]:
        name = modes[number].upper()
        watts = re.search(r"(\d+)W", name)
        unlimited = name.startswith("MAXN") or name.startswith("MAX-N")
        return unlimited, "SUPER" in name, int(watts[1]) if watts else 0

    return max(modes, key=rank) if modes else None


def of_heat(root: Path) -> Iterator[Finding]:
    """Current temperatures, the fan, and how often a limit was hit since boot."""
    hardware = Hardware(root)
    reading = hardware.read()
    hottest = reading.get("temperature_c")
    fan = fan_speed(root)
    if hottest is not None:
        zone = max(reading["temperatures_c"], key=reading["temperatures_c"].get)
        turning = {None: "", 0: ", the fan stands still"}.get(fan, f", the fan turns at {fan}%")
        text = f"{hottest:.0f} °C at most ({zone}){turning}"
        if hottest >= HOT_C:
            yield Finding(
                "heat",
                PROBLEM,
                f"{text}, before any work",
                "clean or attach a fan, and leave room for the air",
            )
        else:
            yield Finding("heat", GOOD, text)
    events = hardware.counted_since_boot()
    if events:
        yield Finding(
            "heat",
            ADVICE,
            f"clocks were throttled {events} times since boot, for heat, power or current",
            "use the power supply that came with the board, a fan, or a lower power mode; runs count them, too",
        )
    elif reading.get("throttled"):
        yield Finding("heat", ADVICE, "a clock is being throttled", "let the machine cool down first")


def fan_speed(root: Path) -> int | None:
    """Speed of the fastest fan in percent of its range; None if no fan reports one."""
    paths = [*root.glob("sys/class/hwmon/hwmon*/pwm1"), root / "sys/devices/pwm-fan/cur_pwm"]
    values = [int(text) for path in paths if (text := read_text(path)) and text.isdigit()]
    return round(100 * min(255, max(values)) / 255) if values else None


def of_disk(folder: Path) -> Iterator[Finding]:
    """Free space, and write speed with the file flushed to disk."""
    free = shutil.disk_usage(folder).free
    text = f"{size_in_words(free)} free in {folder.resolve()}"
    if free < ROOM_BYTES:
        yield Finding(
            "disk",
            PROBLEM,
            f"{text}; slices and a run need {size_in_words(ROOM_BYTES)}",
            "free some, or name a folder on another disk with --folder and --out",
        )
        return
    try:
        speed = write_speed(folder)
    except OSError as error:
        yield Finding(
            "disk", PROBLEM, f"{folder}: can't be written to ({error.strerror})", "name a folder of your own"
        )
        return
    text += f", {size_in_words(speed)}/s written through"
    if speed < SLOW_DISK:
        yield Finding(
            "disk", ADVICE, text, "an NVMe or USB 3 disk instead of a card makes saving and reading faster"
        )
    else:
        yield Finding("disk", GOOD, text)


def write_speed(folder: Path) -> float:
    """Bytes a second, writing one temporary file that is then removed."""
    block = os.urandom(2**20)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.monotonic()
        for _ in range(TEST_FILE_BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return TEST_FILE_BYTES / max(time.monotonic() - began, 1e-6)


def of_clock(now: float) -> Iterator[Finding]:
    """Whether the clock was ever set."""
    if now < EARLIEST_SANE_CLOCK:
        year = time.gmtime(now).tm_year
        yield Finding(
            "clock",
            PROBLEM,
            f"it shows the year {year}, so --until can't be used and downloads may fail",
            "sudo timedatectl set-ntp true",
        )
    else:
        yield Finding("clock", GOOD, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)))
