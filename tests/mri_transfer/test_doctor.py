"""The doctor on the files of boards, written as those boards write them, and on this machine."""

import json
import sys
from pathlib import Path

import pytest

from mri_transfer.machine import checks
from mri_transfer.machine.boards import FAMILIES, JETPACK, read_board
from mri_transfer.machine.checks import ADVICE, GOOD, PROBLEM
from tests.mri_transfer.file_trees import write

ORIN_MODES = (
    "< PM_CONFIG DEFAULT=2 >\n< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=7W >\n"
)
TX2_MODES = "".join(
    f"< POWER_MODEL ID={i} NAME={name} >\n"
    for i, name in enumerate(("MAXN", "MAXQ", "MAXP_CORE_ALL", "MAXP_CORE_ARM", "MAXP_CORE_DENVER"))
)


def release(major, revision, board):
    return (
        f"# R{major} (release), REVISION: {revision}, GCID: 38968081, BOARD: {board}, EABI: aarch64, "
        "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
    )


def meminfo(total_kb, available_kb):
    return f"MemTotal:       {total_kb} kB\nMemFree:         512000 kB\nMemAvailable:   {available_kb} kB\n"


SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
ZRAM = SWAPS + "".join(
    f"/dev/zram{i}                              partition\t635512\t\t0\t\t5\n" for i in range(6)
)

TX2 = {
    "proc/device-tree/model": "quill\0",
    "etc/nv_tegra_release": release(32, "7.1", "t186ref"),
    "proc/meminfo": meminfo(8041120, 6233900),
    "proc/swaps": ZRAM,
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": TX2_MODES,
    "sys/class/thermal/thermal_zone0/type": "BCPU-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/thermal/thermal_zone6/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone6/temp": "100000\n",
    "sys/devices/pwm-fan/cur_pwm": "0\n",
}
XAVIER = {
    "proc/device-tree/model": "Jetson-AGX\0",
    "etc/nv_tegra_release": release(35, "4.1", "t186ref"),
    "proc/meminfo": meminfo(31200000, 28000000),
    "proc/swaps": SWAPS,
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "38500\n",
}
ORIN_NANO = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": release(36, "4.3", "generic"),
    "proc/meminfo": meminfo(7802324, 2100000),
    "proc/swaps": ZRAM,
    "proc/1432/comm": "gnome-shell\n",
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "etc/nvpmodel.conf": ORIN_MODES,
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "84125\n",
    "sys/class/hwmon/hwmon2/oc3_event_cnt": "17\n",
    "sys/class/hwmon/hwmon0/pwm1": "128\n",
}
AGX_ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "etc/nv_tegra_release": release(36, "3.0", "generic"),
    "proc/meminfo": meminfo(64347612, 58000000),
    "proc/swaps": SWAPS + "/swapfile                               file\t\t8388604\t\t0\t\t-2\n",
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=MODE_15W >\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "47500\n",
}
DESKTOP = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD Ryzen 7 5800X 8-Core Processor\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14\n",
    "proc/meminfo": meminfo(32768000, 30000000),
    "proc/swaps": SWAPS,
    "proc/900/comm": "Xorg\n",
}


def found_on(root):
    board = read_board(root)
    return [
        *checks.of_board(board),
        *checks.of_memory(root, board),
        *checks.of_power(root),
        *checks.of_heat(root),
    ]


def of(findings, topic, level=None):
    return [f for f in findings if f.topic == topic and level in (None, f.level)]


def test_a_tx2_is_told_that_its_tensorflow_is_too_old_and_that_it_runs_slowly(tmp_path):
    root = write(tmp_path, TX2)
    board = read_board(root)
    assert (board.l4t, board.jetpack) == ("32.7.1", "4.6.1")
    findings = found_on(root)
    (finding,) = of(findings, "board")
    assert finding.level == PROBLEM
    assert "2.7.0+nv22.1" in finding.text
    assert "Keras 3" in finding.remedy
    assert "mri-transfer export --format training-graph --for tf2.7" in finding.remedy
    (power,) = of(findings, "power")
    assert (power.level, power.remedy.split(" (")[0]) == (ADVICE, "sudo nvpmodel -m 0")
    assert "MAXQ" in power.text
    (heat,) = of(findings, "heat")
    assert "42 °C at most (BCPU-therm), the fan stands still" in heat.text  # not the power chip's 100
    assert [f.level for f in of(findings, "memory")] == [GOOD, ADVICE]
    assert "zram" in of(findings, "memory", ADVICE)[0].text


def test_a_xavier_on_jetpack_5(tmp_path):
    findings = found_on(write(tmp_path, XAVIER))
    (finding,) = of(findings, "board")
    assert finding.level == PROBLEM
    assert "5.1.2" in finding.text
    assert "a Xavier can't" in finding.remedy
    assert "--for tf2.12" in finding.remedy
    (power,) = of(findings, "power")
    assert (power.level, power.text) == (GOOD, "power mode 2")  # its names can't be read
    assert [f.level for f in of(findings, "memory")] == [GOOD]  # 32 GB need no swap


def test_a_small_orin_that_is_hot_throttled_and_shows_a_desktop(tmp_path):
    findings = found_on(write(tmp_path, ORIN_NANO))
    assert of(findings, "board")[0].level == GOOD
    assert "JetPack 6.2" in of(findings, "board")[0].text
    short, desktop, swap = of(findings, "memory")
    assert (short.level, desktop.level, swap.level) == (PROBLEM, ADVICE, ADVICE)
    assert "2.15 GB free" in short.text
    assert "shared with the GPU" in short.text
    assert "gnome-shell" in desktop.text
    assert "-m 2" in of(findings, "power")[0].remedy  # MAXN_SUPER, not the first
    hot, held = of(findings, "heat")
    assert (hot.level, held.level) == (PROBLEM, ADVICE)
    assert "84 °C" in hot.text
    assert "50%" in hot.text
    assert "17 times" in held.text


def test_nothing_is_wrong_with_a_large_orin(tmp_path):
    findings = found_on(write(tmp_path, AGX_ORIN))
    assert {f.level for f in findings} == {GOOD}
    assert not any(f.remedy for f in findings)


def test_a_desktop_whose_gpu_tensorflow_does_not_see(tmp_path):
    root = write(tmp_path, DESKTOP)
    assert read_board(root) is None
    assert checks.machine_name(root, None).startswith("AMD Ryzen 7")
    assert [f.level for f in of(found_on(root), "memory")] == [GOOD]  # a desktop does not matter beside 32 GB
    facts = {"backend": "tensorflow", "version": "2.21.0", "keras": "3.15.1", "cuda": False, "gpus": []}
    (software,) = checks.of_software(facts, None, root)
    assert software.level == PROBLEM
    assert "tensorflow[and-cuda]" in software.remedy
    (software,) = checks.of_software({**facts, "gpus": ["NVIDIA GeForce RTX 3060"]}, None, root)
    assert software.level == GOOD
    (software,) = checks.of_software(facts, None, tmp_path / "nowhere")
    assert software.level == GOOD


def test_a_board_whose_tensorflow_is_that_of_pypi(tmp_path, monkeypatch):
    board = read_board(write(tmp_path, ORIN_NANO))
    facts = {"backend": "tensorflow", "version": "2.16.1", "keras": "3.12.0", "cuda": False, "gpus": []}
    (software,) = checks.of_software(facts, board, tmp_path)
    assert "2.16.1+nv24.08" in software.remedy
    monkeypatch.setattr(checks, "_tensorflow_build", lambda: "2.16.1+nv24.8")
    (software,) = checks.of_software(facts, board, tmp_path)
    assert "group video" in software.remedy


def test_what_cannot_be_imported_is_a_finding(monkeypatch):
    monkeypatch.setattr(checks, "PROBE", "import no_such_module_as_this")
    (software,) = checks.of_software(checks.probe(), None)
    assert software.level == PROBLEM
    assert "no_such_module_as_this" in software.text
    monkeypatch.setattr(checks, "PROBE", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    assert "signal 4" in checks.probe()["error"]


def test_a_gpu_that_is_seen_and_does_not_compute(tmp_path, monkeypatch):
    """As JAX of PyPI on an Orin: the device is listed, and the first product ends the process."""
    facts = {"backend": "jax", "version": "0.11.1", "keras": "3.15.1", "cuda": True, "gpus": ["Orin"]}
    probe = f"import json, os; print('FOUND ' + json.dumps({facts}), flush=True); os.abort()"
    monkeypatch.setattr(checks, "PROBE", probe)
    answer = checks.probe()
    (software,) = checks.of_software(answer, read_board(write(tmp_path, ORIN_NANO)), tmp_path)
    assert software.level == PROBLEM
    assert "signal 6" in software.text
    assert "sm_87" in software.remedy
    assert "sm_87" not in next(checks.of_software(answer, None, tmp_path)).remedy
    monkeypatch.setattr(checks, "PROBE", probe.replace("os.abort()", "print('COMPUTED 1.0')"))
    assert next(checks.of_software(checks.probe(), None, tmp_path)).level == GOOD


@pytest.mark.parametrize(
    ("text", "l4t", "jetpack"),
    [
        (release(36, "4.7", "generic"), "36.4.7", "6.2.1"),
        (release(36, "9.9", "generic"), "36.9.9", "6.x"),
        (release(39, "1.0", "generic"), "39.1.0", "7.x"),
        (release(28, "2.0", "t186ref"), "28.2.0", None),
        (release(36, "3", "generic"), "36.3.0", "6.0"),
        ("something else entirely\n", None, None),
        ("", None, None),
    ],
)
def test_releases_that_are_newer_older_or_written_in_another_way(tmp_path, text, l4t, jetpack):
    board = read_board(write(tmp_path, {"etc/nv_tegra_release": text, "proc/device-tree/model": "Jetson\0"}))
    assert (board.l4t, board.jetpack) == (l4t, jetpack)
    (finding,) = checks.of_board(board)
    assert finding.level == (GOOD if jetpack in ("6.2.1", "6.x", "6.0") else finding.level)
    assert (finding.remedy == "") == (finding.level == GOOD)


def test_listed_releases_belong_to_the_family_that_their_jetpack_says():
    for l4t, jetpack in JETPACK.items():
        family = next(f for f in FAMILIES if f.l4t == int(l4t.split(".")[0]))
        assert jetpack.split(".")[0] == family.jetpack.split(".")[0]


def test_files_that_are_missing_or_full_of_rubbish_are_no_error(tmp_path):
    assert found_on(tmp_path)[0].level == GOOD
    rubbish = dict.fromkeys([*TX2, *ORIN_NANO], "\0\xff rubbish : = \n\n")
    for finding in found_on(write(tmp_path / "rubbish", rubbish)):
        assert finding.text


def test_a_full_disk_a_slow_one_and_one_that_belongs_to_somebody_else(tmp_path, monkeypatch):
    import shutil

    class Usage:
        free = 5e9

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage)
        (disk,) = checks.of_disk(tmp_path)
        assert (disk.level, "5 GB free" in disk.text) == (PROBLEM, True)
    with monkeypatch.context() as patch:
        patch.setattr(checks, "write_speed", lambda _: 5e6)
        assert next(checks.of_disk(tmp_path)).level == ADVICE

    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks, "write_speed", refused)
    assert "Permission denied" in next(checks.of_disk(tmp_path)).text


def test_a_clock_that_was_never_set():
    (clock,) = checks.of_clock(0.0)
    assert (clock.level, "1970" in clock.text) == (PROBLEM, True)


def test_the_command_reads_a_copy_of_another_machine(cli, tmp_path):
    root = write(tmp_path / "copy", ORIN_NANO)
    done = cli("doctor", "--root", root, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["board"] == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.3",
        "jetpack": "6.2",
    }
    assert report["speed"] is None
    assert not [f for f in report["findings"] if f["topic"] in ("disk", "software", "clock", "speed")]
    assert "[ FIX  ] memory" in done.stdout
    assert "→ sudo nvpmodel -m 2" in done.stdout


def test_a_folder_that_is_not_there(cli, tmp_path):
    done = cli("doctor", "--root", tmp_path / "no")
    assert done.returncode == 2
    assert "no such folder" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_this_machine_is_measured_and_left_as_it_was(command, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    done = command("doctor", "--seconds", 2, "--folder", folder, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "found.json").read_text())
    topics = {f["topic"] for f in report["findings"]}
    assert {"board", "software", "memory", "disk", "clock", "speed"} <= topics
    assert report["speed"]["views_per_second"] > 0
    assert set(report["speed"]["step_seconds"]) == {"float32", "bfloat16"}
    assert "mri-transfer pretrain STORE" in report["recommended"]["command"]
    assert list(Path(folder).iterdir()) == []
