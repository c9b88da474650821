"""What the kernel reports about the machine: temperatures, throttling, clock, power, power mode.

Read from files, so nothing needs installing, and only where the kernel exposes them:

    /sys/class/thermal/thermal_zone*/{type,temp}           millidegrees Celsius
    /sys/class/thermal/cooling_device*/{type,cur_state}    above 0 while a clock is throttled
    /sys/class/hwmon/hwmon*/oc*_event_cnt                  Jetson: how often power or current went over a limit
    /sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count    the same for heat on x86
    /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq  kHz
    /sys/class/hwmon/hwmon*/in*_label, in*_input, curr*_input    Jetson's INA3221: mV and mA of each rail
    /var/lib/nvpmodel/status, /etc/nvpmodel.conf           Jetson: number of the power mode, and its name

The kernel's names: https://docs.kernel.org/driver-api/thermal/sysfs-api.html, https://docs.kernel.org/hwmon/sysfs-interface.html;
Jetson's: "Jetson Orin Nano Series, Jetson Orin NX Series and Jetson AGX Orin Series: Platform Power and Performance" in
NVIDIA's Jetson Linux Developer Guide. An unreadable file is not an error: parts of a Jetson that are switched off
return EAGAIN, and files vanish with their drivers.
"""

from __future__ import annotations

import datetime
import re
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mri_transfer.machine.kernel import read_text

# A board without a clock battery starts in 1970 (or at its system's build date) until it syncs over the network.
EARLIEST_SANE_CLOCK = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc).timestamp()
# Reading may take this share of the time: frequencies come from the firmware, and some answer slowly.
SHARE = 0.001
PLAUSIBLE_C = (-40.0, 150.0)
# The PMIC of Xavier and Nano always says 100 degrees.
NOT_A_SENSOR = {"pmic-die", "pmic_die"}
# Cooling devices that throttle a clock; a fan does not.
HOLDS_BACK = re.compile(r"throttle|cpufreq|devfreq|processor|intel_powerclamp", re.IGNORECASE)
WHOLE_MODULE = "VDD_IN"  # the rail that carries all of a Jetson module's power


def _number(path: Path) -> float | None:
    try:
        return float(int(read_text(path)))
    except ValueError:
        return None


def _number_of(path: Path) -> int:
    """thermal_zone10 comes after thermal_zone9."""
    return int(re.sub(r"\D", "", path.name) or 0)


class Hardware:
    """Reads the machine's state; discovers the available sources once.

    Args:
        root: the file system's.
        clock: monotonic seconds.
    """

    def __init__(self, root: Path = Path("/"), clock: Any = time.monotonic):
        root = Path(root)
        sys, thermal, monitors = root / "sys", root / "sys/class/thermal", root / "sys/class/hwmon"
        self._clock, self._next = clock, float("-inf")
        self._zones = [
            (kind, zone / "temp")
            for zone in sorted(thermal.glob("thermal_zone*"), key=_number_of)
            if (kind := read_text(zone / "type")) and kind.lower() not in NOT_A_SENSOR
        ]
        self._cooling = [
            device / "cur_state"
            for device in sorted(thermal.glob("cooling_device*"))
            if HOLDS_BACK.search(read_text(device / "type"))
        ]
        packages = {
            read_text(cpu.parent.parent / "topology/physical_package_id"): cpu
            for cpu in sys.glob("devices/system/cpu/cpu*/thermal_throttle/package_throttle_count")
        }
        self._counters = [*sorted(monitors.glob("hwmon*/oc*_event_cnt")), *packages.values()]
        self._counts = {path: _number(path) for path in self._counters}
        self._clocks = sorted(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._rails = [
            (
                label.with_name(label.name.replace("_label", "_input")),
                label.with_name(label.name.replace("in", "curr", 1).replace("_label", "_input")),
            )
            for label in monitors.glob("hwmon*/in*_label")
            if read_text(label) == WHOLE_MODULE
        ]
        self._mode_file = root / "var/lib/nvpmodel/status"
        self._mode_names = dict(
            re.findall(r"POWER_MODEL\s+ID=0*(\d+)\s+NAME=([^\s>]+)", read_text(root / "etc/nvpmodel.conf"))
        )

    @property
    def power_modes(self) -> dict[str, str]:
        """Names of a Jetson's power modes by number; empty on other machines."""
        return dict(self._mode_names)

    def counted_since_boot(self) -> int | None:
        """How often a heat, power or current limit was hit since boot; None if nothing counts."""
        values = [value for path in self._counters if (value := _number(path)) is not None]
        return int(sum(values)) if values else None

    def read(self) -> dict[str, Any]:
        """Current readings; empty if there are none, or if reading is slow and was done a moment ago.

        Returns:
            Any of "temperatures_c" (by zone), "temperature_c" (the hottest of them), "throttled" (whether a clock is
            throttled now, or was since the last reading), "throttle_events" (counted since the last reading), "cpu_mhz"
            (mean of the cores), "power_w" (of the module), "power_mode".
        """
        began = self._clock()
        if began < self._next:
            return {}
        reading: dict[str, Any] = {}
        temperatures: dict[str, float] = {}
        for kind, path in self._zones:
            value = _number(path)
            if value is not None and PLAUSIBLE_C[0] < value / 1000 < PLAUSIBLE_C[1]:
                temperatures[kind] = max(round(value / 1000, 1), temperatures.get(kind, PLAUSIBLE_C[0]))
        if temperatures:
            reading |= {"temperatures_c": temperatures, "temperature_c": max(temperatures.values())}
        states = [state for path in self._cooling if (state := _number(path)) is not None]
        events = self._new_events()
        if states or events is not None:
            reading["throttled"] = any(state > 0 for state in states) or bool(events)
        if events is not None:
            reading["throttle_events"] = events
        clocks = [value for path in self._clocks if (value := _number(path)) is not None]
        if clocks:
            reading["cpu_mhz"] = round(statistics.fmean(clocks) / 1000)
        for volts, amperes in self._rails:
            mv, ma = _number(volts), _number(amperes)
            if mv is not None and ma is not None:
                reading["power_w"] = round(mv * ma / 1e6, 2)
        mode = re.match(r"pmode:0*(\d+)", read_text(self._mode_file))
        if mode:
            reading["power_mode"] = self._mode_names.get(mode[1], mode[1])
        self._next = began + (self._clock() - began) / SHARE
        return reading

    def _new_events(self) -> int | None:
        """Count since the last call, or None if nothing counts."""
        new = None
        for path in self._counters:
            value, before = _number(path), self._counts[path]
            if value is None:
                continue
            self._counts[path] = value
            new = (new or 0) + max(0, int(value - before) if before is not None else 0)
        return new


def summary_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summary of the machine's state during a run, from the lines of metrics.jsonl.

    Returns:
        Any of "peak_temperature_c", "hottest" (the zone), "throttled_share" (of the readings), "throttle_events",
        "power_w" (mean), "power_modes", and a readable "sentence"; empty if nothing could be read.
    """
    hot = [line["temperatures_c"] for line in lines if line.get("temperatures_c")]
    throttled = [bool(line["throttled"]) for line in lines if line.get("throttled") is not None]
    power = [line["power_w"] for line in lines if line.get("power_w") is not None]
    modes = _distinct(line["power_mode"] for line in lines if line.get("power_mode") is not None)
    summary: dict[str, Any] = {}
    words = []
    if hot:
        peak, zone = max((value, zone) for reading in hot for zone, value in reading.items())
        summary |= {"peak_temperature_c": peak, "hottest": zone}
        words.append(f"at most {peak:.0f} °C ({zone})")
    if throttled:
        events = sum(line.get("throttle_events") or 0 for line in lines)
        summary |= {"throttled_share": round(sum(throttled) / len(throttled), 4), "throttle_events": events}
        words.append(
            f"throttled in {sum(throttled)} of {len(throttled)} readings"
            if any(throttled)
            else "never throttled"
        )
    if power:
        summary["power_w"] = round(statistics.fmean(power), 2)
        words.append(f"{summary['power_w']:.1f} W on average")
    if modes:
        summary["power_modes"] = modes
        words.append(f"power mode {', then '.join(modes)}")
    if words:
        summary["sentence"] = f"the machine: {', '.join(words)}"
    return summary


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))
