"""Names that say map, mask, phase or another modality, and names of scans that have such words in them."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mri_transfer.datasets.volumes.left_out import left_out
from mri_transfer.datasets.volumes.names_of_maps import tissue_classes

SCANS = """
IXI013-HH-1212_T1 TCGA_CS_4941_19960909_FLAIR T1_to_atlas lesion_T1w sub-01_inplaneT2 sub-01_UNIT1
sub-01_acq-mp2rage_inv-1_part-mag_MP2RAGE MA_T1 FA_T1 t1_mprage_sag_p2_iso brain_1 s1_T1 c1_T1 p1_T1 P01_R1
T1_arterial_phase phase2_sub01_T1 study_phase1 sub01_phase2 MD01_T1w EPI01_flair dti_study_T1 wm_study_012_T2
patient_map01_T1 atlas_001_T1 t2_tirm_tra_dark-fluid gre_3d_ce mprage_skullstripped T1_restore T1_biascorr reg_T1
real_patient_01 CT_0032_T1 realT1 mo_T1 anat sub-01_T2star T2starw sub-01_T2starw norm nu orig 3D_T1_std
T1w_acpc_dc_restore_brain prior_scan_T1 gm_001_T1 OAS1_0001_MR1_mpr_n4_anon_sbj_111 tumor_001 patient_2_post_T1
sub-mask_T1w sub-seg01_T1w sub-FA01_T1w MASK01_T1 T1_mapped_to_MNI T1_lesion_filled lesion_filled_T1 con_0001 b01
T1_warp sub01_T1w_warp T1_brain_warp qsm_001_T1 lesion_001_flair
"""
OTHERS = {
    "labels": """aal aparc+aseg aseg T1_seg brainMask T1_brain_mask lesion WMH T1_pveseg Schaefer2018_labels JHU_atlas
        lesion_001 T1_lesion_001 groundtruth T1_tumorSeg filled AAL116 GTV
        Schaefer2018_400Parcels_7Networks P1_tumor_segmentation synthseg T2_synthseg T1_label 001_labelmap T1_roi
        sub-01_dseg
        segm W39_1998.09.19_Segm GlistrBoost_ManuallyCorrected T1_brain_pveseg sub-01_label-L_mask""",
    "maps": """T1_pve_0 T1_fast_pve_1 gm GM_prob csf wm_prob T1map sub-01_T1map sub-01_R2starmap sub-01_Chimap M0map
        sub-01_TB1map dti_FA P-0001_DTI_eddy_FA dti_MD dti_L1 dti_V1 FA ADC P1_ADC subj_CBF rCBV MTT tmax zstat1 tstat1
        cope1 varcope1 pe1 thresh_zstat1 zfstat1 spmT_0001 ResMS corrp_tstat1 QSM jacobian biasfield T2_map
        RD AD R2_star beta_0001
        white_matter T1w_T2w_ratio OEF wm_fod bias_field
        warp anat2std_warp T1_to_MNI_warp T1_warpfield qsm_001 001_qsm qsm_T1 qsm_to_T1 T1_qsm""",
    "fmap": """sub-01_fieldmap sub-01_phasediff sub-01_phase1 sub-01_magnitude1 T1_phase series_ph gre_real
        gre_imaginary sub-01_part-phase_T2starw sub-01_part-real_T2starw sub-01_part-imag_MEGRE Fieldmap_Hz
        phase imag gre_phase_e2 mGRE_ph_e1 phase_image gre_field_mapping sub-01_TB1TFL""",
    "func": "bold rest_bold task-rest_bold epi mean_epi sub-01_bold rest rest_1 tfMRI_MOTOR_LR",
    "dwi": "dwi_b0 DTI_b1000 sub-01_dwi nodif_brain b0 b1000",
    "perf": "asl sub-01_asl patient_pcasl",
    "ct": "ct patient1_CT NCCT cta_head",
}
FOLDERS = (
    "labelsTr labelsTs labels Masks segmentations annotations Parcellations ROIs atlas groundTruth GT seg"
)


@pytest.mark.parametrize("stem", SCANS.split())
def test_names_of_scans(stem):
    assert left_out(PurePosixPath(f"d/{stem}.nii.gz")) is None


@pytest.mark.parametrize(
    ("kind", "stem"), [(kind, stem) for kind, names in OTHERS.items() for stem in names.split()]
)
def test_names_of_other_things(kind, stem):
    name = PurePosixPath(f"d/{stem}.nii.gz")
    assert left_out(name).endswith(f"; see --include {kind}")
    assert left_out(name, (kind,)) is None


@pytest.mark.parametrize("folder", FOLDERS.split())
def test_folders_of_labels(folder):
    name = PurePosixPath("data") / folder / "case_001.nii.gz"
    assert f"in {folder}/, which holds label maps" in left_out(name)
    assert left_out(name, ("labels",)) is None
    assert left_out(PurePosixPath(folder) / "case_001.nii.gz") is None  # the folder that was given


@pytest.mark.parametrize("folder", ["imagesTr", "T1", "pre", "maskelyne", "Labelle", "segment_01"])
def test_folders_of_scans(folder):
    assert left_out(PurePosixPath("data") / folder / "case_001.nii.gz") is None


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ("T1 c1T1 c2T1 c3T1 wc1T1 mwc2T1 rc1T1", "c1T1 c2T1 c3T1 wc1T1 mwc2T1 rc1T1"),  # SPM
        ("c1abc c2abc c3abc", "c1abc c2abc c3abc"),
        ("s01 mri/p1s01 mri/mwp1s01", "mri/p1s01 mri/mwp1s01"),  # CAT12
        ("c1_T1 c2_T1 c3_T1", ""),  # three controls
        ("p1_T1 p2_T1 p3_T1 p4_T1", ""),
        ("c1001 c2001 c3001", ""),
        ("c1T1 c4T1", ""),
    ],
)
def test_tissue_classes_of_a_scan(names, classes):
    maps = tissue_classes([f"d/{name}.nii" for name in names.split()])
    assert sorted(maps) == sorted(f"d/{name}.nii" for name in classes.split())
