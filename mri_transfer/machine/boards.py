"""Which NVIDIA Jetson this is, if any, which JetPack it runs, and how to train on it.

    /proc/device-tree/model   "NVIDIA Jetson Orin Nano Developer Kit", ended by a zero byte
    /etc/nv_tegra_release     "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: ..."

Sources: https://developer.nvidia.com/embedded/jetpack-archive for JetPack by release of Jetson Linux (L4T), and
https://docs.nvidia.com/deeplearning/frameworks/install-tf-jetson-platform-release-notes/tf-jetson-rel.html for the
builds of TensorFlow that see the GPU. Those from PyPI run only on a Jetson's CPU.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from mri_transfer.machine.kernel import read_text

MODEL, RELEASE = "proc/device-tree/model", "etc/nv_tegra_release"

# L4T to JetPack; the family below names any release not listed.
JETPACK = {
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "38.2.0": "7.0",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """A branch of JetPack, and how to train on its boards.

    Attributes:
        jetpack: its name.
        l4t: the first number of its releases of Jetson Linux.
        boards: those it runs on.
        python: its Ubuntu's version.
        tensorflow: NVIDIA's newest build that sees the GPU.
        keras3: whether that build runs Keras 3, which this program needs.
        how: what to do there, for people.
    """

    jetpack: str
    l4t: int
    boards: str
    python: str
    tensorflow: str
    keras3: bool
    how: str


FAMILIES = (
    Family(
        "4.6",
        32,
        "Nano, TX2, Xavier",
        "3.6",
        "2.7.0+nv22.1",
        False,
        "its TensorFlow can't run Keras 3, but trains a graph that another computer makes: there "
        "`mri-transfer export --format training-graph --for tf2.7`, here the runner.py in that folder, and then "
        "`mri-transfer import-graph` there",
    ),
    Family(
        "5.1",
        35,
        "Xavier, Orin",
        "3.8",
        "2.12.0+nv23.06",
        False,
        "its TensorFlow can't run Keras 3: an Orin can be brought to JetPack 6, where all works; a Xavier can't, and "
        "trains a graph that another computer makes with `mri-transfer export --format training-graph --for tf2.12`",
    ),
    Family(
        "6",
        36,
        "Orin",
        "3.10",
        "2.16.1+nv24.08",
        True,
        "install NVIDIA's TensorFlow, then this program beside it; all commands work",
    ),
    Family(
        "7",
        38,
        "Thor, Orin",
        "3.12",
        "none",
        True,
        "NVIDIA builds no TensorFlow for it: set KERAS_BACKEND=jax with a JAX that sees the GPU (not tried yet)",
    ),
)


@dataclasses.dataclass(frozen=True)
class Board:
    """A Jetson.

    Attributes:
        model: from the device tree; "NVIDIA Jetson" if that can't be read.
        l4t: release of Jetson Linux, such as "36.4.3"; None if it can't be read.
    """

    model: str
    l4t: str | None

    @property
    def family(self) -> Family | None:
        """The branch of JetPack; None if the release is unknown or belongs to none of them."""
        major = int(self.l4t.split(".")[0]) if self.l4t else 0
        # 7.x continues from 38; 33 and 34 were previews.
        newest = max(family.l4t for family in FAMILIES)
        return next((f for f in FAMILIES if major == f.l4t or (f.l4t == newest and major > newest)), None)

    @property
    def jetpack(self) -> str | None:
        """Such as "6.2", or "6.x" for a release that is newer than this list."""
        if self.l4t in JETPACK:
            return JETPACK[self.l4t]
        return f"{self.family.jetpack}.x" if self.family else None


def read_board(root: Path = Path("/")) -> Board | None:
    """The Jetson whose file system is mounted at `root`; None for any other machine."""
    model, release = read_text(Path(root) / MODEL), read_text(Path(root) / RELEASE)
    if not (Path(root) / RELEASE).is_file() and not re.search(r"jetson|tegra", model, re.IGNORECASE):
        return None
    match = re.search(r"R(\d+)\b.*?REVISION:\s*(\d+(?:\.\d+)*)", release, re.DOTALL)
    l4t = None
    if match:
        numbers = [match[1], *match[2].split(".")]
        l4t = ".".join([*numbers, "0", "0"][: max(3, len(numbers))])
    return Board(model or "NVIDIA Jetson", l4t)
