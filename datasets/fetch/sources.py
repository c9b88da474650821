"""The single table of sources: what each is, its addresses, what its licence requires, and the references."""

from __future__ import annotations

from dataclasses import dataclass

from mri_transfer.datasets.fetch.transfer.addresses import split_credentials

IXI_MODALITIES = ("T1", "T2", "PD", "MRA")
OASIS_DISCS = tuple(range(1, 13))
OASIS_VARIANTS = ("subj111", "raw", "t88")
KAGGLE_SET = "sartajbhuvaji/brain-tumor-classification-mri"


@dataclass(frozen=True)
class Archive:
    """One archive of a source.

    Attributes:
        name: of the file on disk and, unless `address` is given, below the source's base address.
        md5: as published, or None.
        bytes: its size when last checked; used for the space check if the server gives no size.
        unpacked: approximate bytes we unpack per byte of the archive; for the space check.
        address: below the base address.
    """

    name: str
    md5: str | None = None
    bytes: int | None = None
    unpacked: float = 1.0
    address: str = ""


@dataclass(frozen=True)
class Source:
    """A public collection.

    Attributes:
        base: base address of its files; `--mirror` overrides it.
        home: its home page, also for when something has moved.
        found_at: source of the addresses and checksums below.
        terms: what users may and must do, in our words; the owners' wording is binding.
        kind: the kind its folder is claimed for.
        ask: whether the owners require agreement before any download.
    """

    name: str
    title: str
    base: str
    home: str
    found_at: str
    licence: str
    terms: str
    cite: str
    kind: str
    ask: bool = False

    def base_of(self, mirror: str | None) -> str:
        """The base address of the files, ending in a slash."""
        return (split_credentials(mirror)[0] if mirror else self.base).rstrip("/") + "/"


SOURCES = {
    "ixi": Source(
        name="ixi",
        title="IXI: nearly 600 healthy adults, three London hospitals, 1.5 and 3 T",
        base="https://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI/",
        home="https://brain-development.org/ixi-dataset/",
        found_at="links of the data set's page; MD5s as TorchIO (torchio/datasets/ixi.py) and MONAI check them",
        licence="CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/legalcode",
        terms="Use and share it, also changed, if you name the source and share under the same licence.",
        cite="IXI - Information eXtraction from Images (EPSRC GR/S21533/02), https://brain-development.org/ixi-dataset/",
        kind="copy of IXI",
    ),
    "oasis1": Source(
        name="oasis1",
        title="OASIS-1: 416 adults of 18 to 96 years, 100 of them with mild dementia, T1 at 1.5 T",
        base="https://download.nrg.wustl.edu/data/",
        home="https://sites.wustl.edu/oasisbrains/home/oasis-1/",
        found_at="links of the data set's page; no checksums are published",
        licence="OASIS Data Use Agreement, https://sites.wustl.edu/oasisbrains/home/access/",
        terms="Ask for access on that page first; the agreement's own words count. In short: for research, not for "
        "commerce; do not try to find out who the participants are; do not pass the data on; acknowledge OASIS.",
        cite="Data were provided by OASIS-1: Cross-Sectional: Principal Investigators: D. Marcus, R. Buckner, "
        "J. Csernansky, J. Morris; P50 AG05681, P01 AG03991, P01 AG026276, R01 AG021910, P20 MH071616, "
        "U24 RR021382. Marcus et al. 2007, https://doi.org/10.1162/jocn.2007.19.9.1498",
        kind="copy of OASIS-1",
        ask=True,
    ),
    "openneuro": Source(
        name="openneuro",
        title="OpenNeuro",
        base="https://s3.amazonaws.com/openneuro.org/",
        home="https://openneuro.org/datasets/",
        found_at="the public bucket openneuro.org in the Registry of Open Data on AWS, "
        "https://registry.opendata.aws/openneuro/",
        licence="as its dataset_description.json says; CC0 where it says nothing",
        terms="OpenNeuro asks to be cited together with the data set, and forbids to identify participants.",
        cite="the data set's DOI and https://openneuro.org (RRID:SCR_005031)",
        kind="copy of OpenNeuro data sets",
    ),
    "tumors": Source(
        name="tumors",
        title="Brain Tumor Classification (MRI): 3,264 images in four classes",
        base="https://www.kaggle.com/api/v1/datasets/download/",
        home=f"https://www.kaggle.com/datasets/{KAGGLE_SET}",
        found_at="the download address that the data set's page shows",
        licence="MIT, as its authors state; the images were collected from the web and from other sets",
        terms="Kaggle's terms of use hold for the download: https://www.kaggle.com/terms",
        cite=f"Bhuvaji, Kadam, Bhumkar, Dedge, Kanchan: Brain Tumor Classification (MRI), 2020, "
        f"https://www.kaggle.com/datasets/{KAGGLE_SET}",
        kind="copy of the tumour set",
    ),
}

# Sizes as stated by the server (files of October 2014).
IXI_ARCHIVES = {
    "T1": Archive("IXI-T1.tar", "34901a0593b41dd19c1a1f746eac2d58", 4_840_816_640),
    "T2": Archive("IXI-T2.tar", "e3140d78730ecdd32ba92da48c0a9aaa", 3_853_445_120),
    "PD": Archive("IXI-PD.tar", "88ecd9d1fa33cb4a2278183b42ffd749", 4_068_966_400),
    "MRA": Archive("IXI-MRA.tar", "29be7d2fee3998f978a55a9bdaf3407e", 12_400_000_000),
}


def oasis_archive(disc: int, variant: str) -> Archive:
    """One disc: about 1.5 GB packed and 5 GB unpacked, of which one variant of each scan is taken.

    A session's SUBJ_111 and T88_111 volumes have 176 x 208 x 176 voxels of 2 bytes, its raw ones 256 x 256 x
    128, and a disc holds about 39 sessions.
    """
    share = {"subj111": 0.35, "raw": 0.45, "t88": 0.35}[variant]
    return Archive(f"oasis_cross-sectional_disc{disc}.tar.gz", None, 1_500_000_000, share)


TUMOR_ARCHIVE = Archive("brain-tumor-classification-mri.zip", None, 92_000_000, 1.1, address=KAGGLE_SET)
