"""Readings from trees like those of an Orin, a Xavier and a desktop, with the names and figures of such machines."""

import pytest

from mri_transfer.machine.hardware import Hardware, summary_of
from tests.mri_transfer.file_trees import write


def zones(*pairs):
    return {
        f"sys/class/thermal/thermal_zone{i}/{name}": f"{value}\n"
        for i, pair in enumerate(pairs)
        for name, value in zip(("type", "temp"), pair, strict=True)
    }


@pytest.fixture
def orin(tmp_path):
    files = zones(("cpu-thermal", 48531), ("gpu-thermal", 47812), ("cv0-thermal", ""), ("tj-thermal", 49062))
    files |= {f"sys/class/hwmon/hwmon2/oc{i}_event_cnt": f"{i}\n" for i in (1, 2, 3)}
    files |= {"sys/class/hwmon/hwmon2/name": "soctherm_oc\n"}
    rails = {"in1_label": "VDD_IN", "in1_input": 5056, "curr1_input": 1456, "in2_label": "VDD_CPU_GPU_CV"}
    files |= {f"sys/class/hwmon/hwmon1/{name}": f"{value}\n" for name, value in rails.items()}
    files |= {
        f"sys/devices/system/cpu/cpu{i}/cpufreq/scaling_cur_freq": f"{khz}\n"
        for i, khz in enumerate((1510400, 729600))
    }
    cooling = {"pwm-fan": 3, "cpu-throttle-alert": 0, "cpufreq-cpu0": 0}
    for i, (kind, state) in enumerate(cooling.items()):
        files |= {f"sys/class/thermal/cooling_device{i}/type": f"{kind}\n"}
        files |= {f"sys/class/thermal/cooling_device{i}/cur_state": f"{state}\n"}
    files["var/lib/nvpmodel/status"] = "pmode:0001\n"
    files["etc/nvpmodel.conf"] = (
        "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n"
    )
    return write(tmp_path, files)


def test_an_orin_tells_all(orin):
    hardware = Hardware(orin, clock=lambda: 0.0)
    assert hardware.read() == {
        "temperatures_c": {"cpu-thermal": 48.5, "gpu-thermal": 47.8, "tj-thermal": 49.1},
        "temperature_c": 49.1,
        "throttled": False,
        "throttle_events": 0,
        "cpu_mhz": 1120,
        "power_w": 7.36,
        "power_mode": "7W",
    }


def test_throttling_is_counted_from_the_start_of_the_run(orin):
    hardware = Hardware(orin, clock=lambda: 0.0)
    count = orin / "sys/class/hwmon/hwmon2/oc3_event_cnt"
    count.write_text("8\n")
    assert (hardware.read()["throttle_events"], hardware.read()["throttle_events"]) == (5, 0)
    count.write_text("10\n")
    reading = hardware.read()
    assert (reading["throttle_events"], reading["throttled"]) == (2, True)
    assert hardware.read()["throttled"] is False
    (orin / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    assert hardware.read()["throttled"] is True
    (orin / "sys/class/thermal/cooling_device1/cur_state").write_text("0\n")
    (orin / "sys/class/thermal/cooling_device0/cur_state").write_text("9\n")  # a fan slows nothing down
    assert hardware.read()["throttled"] is False


def test_a_xavier_whose_power_chip_always_says_100_degrees(tmp_path):
    pairs = (("AO-therm", 39500), ("CPU-therm", 41000), ("PMIC-Die", 100000), ("thermal-fan-est", 40250))
    root = write(tmp_path, {**zones(*pairs), "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n"})
    reading = Hardware(root).read()
    assert reading["temperature_c"] == 41.0
    assert reading["power_mode"] == "2"
    assert "throttled" not in reading  # nothing there would tell


def test_a_desktop_with_two_processors(tmp_path):
    files = zones(("acpitz", 16800), ("x86_pkg_temp", 71000))
    for cpu, package, count in ((0, 0, 4), (1, 0, 4), (2, 1, 9)):
        base = f"sys/devices/system/cpu/cpu{cpu}"
        files[f"{base}/thermal_throttle/package_throttle_count"] = f"{count}\n"
        files[f"{base}/topology/physical_package_id"] = f"{package}\n"
    root = write(tmp_path, files)
    hardware = Hardware(root, clock=lambda: 0.0)
    for cpu in (0, 1):
        (root / f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/package_throttle_count").write_text("7\n")
    assert hardware.read()["throttle_events"] == 3  # once, though both cores of the package tell it


def test_what_cannot_be_read_is_no_error(orin):
    hardware = Hardware(orin, clock=lambda: 0.0)
    thermal = orin / "sys/class/thermal"
    (thermal / "thermal_zone0/temp").unlink()  # vanished with its driver
    (thermal / "thermal_zone1/temp").write_bytes(b"\xff\xfenonsense")
    (thermal / "thermal_zone3/temp").write_text("999999999\n")  # 999,999 degrees
    (orin / "sys/class/hwmon/hwmon2/oc1_event_cnt").unlink()
    (orin / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    (orin / "var/lib/nvpmodel/status").write_text("\n")
    for core in (0, 1):
        (orin / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq").unlink()
    assert hardware.read() == {"throttled": False, "throttle_events": 0}
    assert Hardware(orin / "nowhere").read() == {}


def test_this_machine_can_be_read():
    reading = Hardware().read()
    assert all(-40 < value < 150 for value in reading.get("temperatures_c", {}).values())


def test_slow_files_are_read_less_often(orin):
    times = iter([0.0, 2.0, 1000.0, 2500.0, 2500.1])  # began and ended, too early, began and ended
    hardware = Hardware(orin, clock=lambda: next(times))
    assert hardware.read()
    assert hardware.read() == {}
    assert hardware.read()


def test_the_night_in_a_sentence():
    lines = [
        {"temperatures_c": {"cpu": 50.0, "gpu": 61.2}, "throttled": False, "throttle_events": 0, "power_w": 7.0},
        {"temperatures_c": {"cpu": 66.6, "gpu": 64.0}, "throttled": True, "throttle_events": 3, "power_w": 9.0},
        {"loss": 1.0},
        {"throttled": False, "power_mode": "15W"},
    ]  # fmt: skip
    summary = summary_of(lines)
    assert summary["sentence"] == (
        "the machine: at most 67 °C (cpu), throttled in 1 of 3 readings, 8.0 W on average, power mode 15W"
    )
    assert (summary["peak_temperature_c"], summary["throttle_events"]) == (66.6, 3)
    assert summary_of([{"loss": 1.0}]) == {}
