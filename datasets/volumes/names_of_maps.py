"""Names of files that are not scans: label, quantitative and statistical maps, tissue classes, phase."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from mri_transfer.datasets.volumes.naming import sequence_of, stem_of, words_of
from mri_transfer.words import word_set

# Anywhere in a name.
_LABELS = word_set(
    """
    mask masks brainmask lesionmask seg segs segm segms dseg fseg pveseg probmask segmentation segmentations
    segmented synthseg label labels labelmap labelled labeled aseg aparc apas parc wmparc parcellation
    parcellations parcels roi rois ribbon aal aal2 aal3 harvardoxford desikan destrieux glistrboost
    manuallycorrected maxprob hypointensities groundtruth annotation annotations lesionseg tumorseg
    tumourseg
    """
)
_MAPS = word_set(
    """
    adc mtsat qsm cbf cbv mtt ttp tmax ktrans rcbv rcbf relcbv relcbf kep resms rpv corrp uncorrp tfce pval
    pvalue pvalues jacobian jacobians logjac warpfield deformation displacement dvf biasfield tsnr
    probability probabilities probseg posterior posteriors pve pves tpm icvf ndi odi isovf fiso ficvf zstat
    tstat fstat zfstat r2star r2s susceptibility
    """
)
_NUMBERED_MAPS = re.compile(
    r"(thresh)?(z|t|f|zf)stats?\d*|(var)?copes?\d*|pe\d+|spm[tfpz]\d*|pve\d|pveseg\d?"
)
_MAP = re.compile(r".*[a-z0-9]maps?$|maps?")  # T1map, famap, chimap; "fmap" and "fieldmap" are another kind
_FIELD_MAPS = word_set("fieldmap fieldmapping fmap phasediff b0map fieldmaphz tb1tfl tb1epi b1plus")
_FUNCTIONAL = {"bold", "fmri", "rsfmri", "rfmri", "tfmri", "sbref", "ep2d"}
_DIFFUSION = {"dwi", "dti", "dki", "dsi", "hardi", "tracew", "nodif"}
_PERFUSION = {"asl", "pcasl", "pasl", "m0scan", "pwi"}
# Unless a sequence follows: `lesion_T1` is a scan, `T1_lesion` is not.
_WEAK_LABELS = word_set(
    """
    wmh wmhs lesion lesions gt truth manual atlas contour contours outline overlay gtv ctv brodmann
    mixeltype edema oedema necrosis annot delineation
    """
)
# As the last word.
_LAST_MAPS = word_set(
    """
    fa md gm wm csf prob prior priors jac warp thickness graymatter greymatter whitematter mtr snr stdev
    bias trace chi t2starmap s0 b1 oef cmro2 kurtosis fod fodf mwf ratio
    """
)
# The whole name, also with a number: `rest.nii` and `rest_1.nii`; but `con_0001.nii` may be a person.
_WHOLE = (
    ("func", re.compile(r"(rest|restingstate|func|functional)(run)?\d*")),
    ("maps", re.compile(r"ad|rd|mk|ak|rk|kfa|beta\d{4}|whitematter|gr[ea]ymatter|biasfield|r[12]star|ratio")),
    ("labels", re.compile(r"(lh|rh)?filled|aal\d+|schaefer20\d\d.*|yeo\d*(networks)?")),
    ("fmap", re.compile(r"phase|imag|imaginary")),
    ("dwi", re.compile(r"b0|b[1-9]000|b[5-9]00")),
)
# Following a name that identifies the file: gre_phase_e2, phase_image.
_BEHIND = re.compile(r"e\d{1,2}|echo\d{0,2}|image|img|part")
_LAST_PHASE = {"phase", "ph", "pha", "phs", "real", "imag", "imaginary", "unwrapped"}
_TENSOR = word_set("ad rd mo mk ak rk kfa ga cl l1 l2 l3 v1 v2 v3 eddy b0")
_TOWARDS = {"to", "in", "into", "on", "2", "space", "reg", "registered"}  # `T1_to_atlas` is a scan
# Contrast-agent phases, and numbered phases of a study.
_TIMES = word_set("arterial venous portal delayed early late native equilibrium nephrographic")
_PART = re.compile(r"(?:^|_)part-(phase|real|imag)(?:_|$)", re.IGNORECASE)
_LABEL_FOLDER = re.compile(
    r"(manual_?|gt_?|brain_?)?(labels?|masks?|segs?|segmentations?|annotations?|parcellations?|rois?|atlas(es)?|"
    r"ground_?truth|gt)(_?(tr|ts|va|val|test|train|training))?",
    re.IGNORECASE,
)
# SPM and CAT12 name tissue classes by prefixing the scan's name: c1, wc1, mwc1, rc2, p1, mwp1, ...
_CLASS = re.compile(
    r"^(?P<how>s?\d?m?0?(?:w|r|u_rc)?)(?P<letter>[cp])(?P<number>[0-9])(?P<rest>.+)$", re.IGNORECASE
)


def by_folder(folder: str) -> str | None:
    """A short description of a folder's content by its name, if it is label maps."""
    return "label maps" if _LABEL_FOLDER.fullmatch(folder) else None


def by_name(name: str) -> tuple[str, str] | None:
    """The kind in :data:`left_out.KINDS` given by a file's name, and the word that says so; or None."""
    stem = re.sub(r"(?:^|(?<=_))(?:sub|ses)-[0-9A-Za-z]+", "", stem_of(name))  # may be a person's name
    words = words_of(re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", stem))
    whole = words_of(stem)
    if (match := _PART.search(stem)) is not None:
        return "fmap", f"part-{match[1].lower()}"
    if not whole:
        return None
    for word in dict.fromkeys((*whole, *words)):
        if word in _LABELS:
            return "labels", word
        if word in _FIELD_MAPS:
            return "fmap", word
        if word == "qsm" and _is_of_study(word, whole):
            continue
        if word in _MAPS or _NUMBERED_MAPS.fullmatch(word) or (_MAP.fullmatch(word) and word != "bitmap"):
            return "maps", word
    joined = "".join(whole)
    for kind, pattern in _WHOLE:
        if pattern.fullmatch(joined):
            return kind, joined
    if joined.endswith(("fieldmapping", "biasfield")):
        return ("fmap" if joined.endswith("mapping") else "maps"), "_".join(whole[-2:])
    last = whole[-1] if not whole[-1].isdigit() or len(whole) < 2 else whole[-2]
    if sequence_of(last) is None:  # `bold_to_T1.nii` is BOLD, but `dti_study_T1.nii` a T1
        for kind, words_of_kind in (("func", _FUNCTIONAL), ("dwi", _DIFFUSION), ("perf", _PERFUSION)):
            if hit := next((piece for piece in whole if piece in words_of_kind), ""):
                if kind == "dwi" and (last in _LAST_MAPS or last in _TENSOR - {"b0", "eddy"}):
                    return "maps", last
                return kind, hit
        for at, word in enumerate(whole):
            towards = at > 0 and whole[at - 1] in _TOWARDS
            if (
                word in _WEAK_LABELS
                and not towards
                and whole[at + 1 : at + 2] != ["filled"]  # lesion-filled: a scan
                and not any(sequence_of(after) for after in whole[at + 1 :])
            ):
                return "labels", word
        before = whole[whole.index(last) - 1] if whole.index(last) else ""
        # FNIRT names its fields T1_to_MNI_warp, with a fourth dimension; T1_warp is a warped scan.
        warped = last == "warp" and _TOWARDS.isdisjoint(whole) and any(map(sequence_of, whole))
        if last in _LAST_MAPS and before not in _TOWARDS and not warped:
            return "maps", last
        ahead = list(whole)
        while len(ahead) > 1 and _BEHIND.fullmatch(ahead[-1]):
            ahead.pop()
        if ahead[-1] in _LAST_PHASE and ahead[-2:-1] and ahead[-2] not in _TIMES | {"trial", "study"}:
            return "fmap", ahead[-1]
        if len(ahead) < len(whole) and ahead[-1] in _LAST_PHASE:
            return "fmap", ahead[-1]
    if (whole[-1] in {"epi", "ct", "ncct", "cta"} or {"ct", "ncct", "cta"} & set(whole[:1])) and sequence_of(
        stem
    ) is None:
        word = next(word for word in (whole[-1], *whole) if word in {"epi", "ct", "ncct", "cta"})
        return ("func" if word == "epi" else "ct"), word
    return None


def _is_of_study(word: str, whole: list[str]) -> bool:
    """Whether a kind of map is a study's name before a person's number and a sequence: qsm_001_T1."""
    behind = whole[whole.index(word) + 1 :] if word in whole else []
    return len(behind) > 1 and behind[0].isdigit() and sequence_of(behind[-1]) is not None


def tissue_classes(names: Iterable[str]) -> dict[str, str]:
    """Files that are tissue classes of another by SPM's and CAT12's prefixes: name → the scan's name.

    `c1T1.nii` is one beside `T1.nii`, or beside `c2T1.nii` and `c3T1.nii`; `c1_T1.nii` and `p1_T1.nii` are people.
    """
    names = list(names)
    folders: dict[str, dict[str, str]] = {}
    for name in names:
        path = PurePosixPath(name)
        folders.setdefault(str(path.parent), {})[stem_of(path.name).lower()] = name
    scans: dict[str, str] = {}
    for folder, stems in folders.items():
        above = folders.get(str(PurePosixPath(folder).parent), {})  # CAT12 puts them into mri/
        for stem, name in stems.items():
            match = _CLASS.match(stem)
            if match is None or match["rest"][0] in "_-. ":
                continue
            rest = match["rest"]
            scan = stems.get(rest) or above.get(rest)
            prefix = match["how"] + match["letter"]
            others = sum(f"{prefix}{number}{rest}" in stems for number in (1, 2, 3))
            if scan is not None or (others == 3 and not rest[0].isdigit()):
                scans[name] = scan or f"{prefix}1{rest}, {prefix}2{rest}, {prefix}3{rest}"
    return {name: scan for name, scan in scans.items() if scan != name}
