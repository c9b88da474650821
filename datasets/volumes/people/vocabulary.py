"""Words in file names that are not persons: sequences, sessions, sites, processing steps, and containers of files.

The lists settle common cases at once, for collections of any size. Other words are judged by the shape of the tree, see
`tree.py`.
"""

from __future__ import annotations

from mri_transfer.words import word_set

SEQUENCE = word_set(
    """
    t1 t1w t1n t1c ct1 t1ce t1gd t1post t1pre t1wce t1wpost t1contrast t1km t1wc t1wn t1wi t1se t1tse
    t1fse t1fl t1mpr t1mprage t1gre t1space t1vibe t1weighted t1ir t13d unit1 uni inv1 inv2 t2 t2w t2f
    t2flair t2tse t2fse t2space t2wi t2weighted t2star t2starw t2s t2gre flair flairw flair3d mprage
    memprage mpr mp rage mp2rage spgr fspgr irspgr bravo tfl tfe tse fse ffe gre vibe space cube vista
    tirm stir darkfluid pd pdw pdt2 proton density swi swan sw minip mip dwi dti dki adc trace fa md
    bold fmri rest task epi asl cbf perf dsc dce mra mrv tof angio ciss fiesta trufi qsm megre mt mtr
    mtw weighted ce gd gad gado gadolinium contrast postcontrast postgad precontrast nocontrast native
    enhanced km ax sag cor tra axial sagittal coronal transversal transverse oblique obl inplane plane
    2d 3d iso isotropic hires lores lowres highres fs fatsat dixon water fat inphase outphase ir se ge
    fl3d tfl3d ep2d acq dark fluid grappa grappa2 fl2d spc st1w st2w st1 st2 blade haste longtr b0 b1000
    t1img t1anat dual mag real imag
    """
)
# Words recognised when several are joined: axt1, 3DFLAIR, sagT2fs.
CORE_SEQUENCE = word_set(
    """
    t1 t1w t1c t1ce t1gd t2 t2w flair mprage mpr spgr fspgr bravo dwi swi mp2rage pd pdw t2star dti adc
    bold fmri
    """
)
CONTRAST = frozenset({"pre", "post", "ce", "gd"})

# Distinguish scans of one person, with or without a number.
SESSION = word_set(
    """
    ses sess session sessions visit vis tp timepoint timepoints time baseline base bl screening followup
    follow up fu month months mo mon mth mths week weeks wk day days year years yr yrs wave exam
    examination acquisition pre post preop postop preoperative postoperative intraop preoperation
    postoperation before after retest rescan repeat rep run runs preradiotherapy postradiotherapy
    pretreatment posttreatment prechemo postchemo treatment initial final first second third early late
    entry return interim presurgery postsurgery presurgical postsurgical admission discharge op surgery
    chemo rt tx therapy radiotherapy prert postrt pretx posttx acute subacute chronic relapse remission
    progression recurrence diagnosis dx current prior previous prev nadir cycle phase round trimester
    line one two three hour hours timept tpt occasion appointment
    """
)
# Letters that count sessions when a number follows: V1, M06, D0, W12, Y2, TP3, FU1.
SESSION_LETTERS = word_set("v m d w y t tp fu bl")
MONTH_NAMES = word_set(
    """
    jan feb mar apr jun jul aug sep sept oct nov dec january february march april june july august
    september october november december
    """
)

SITE = word_set(
    """
    site sites center centre centers centres hospital hosp clinic institute institution inst univ
    university lab scanner location region country city vendor prisma skyra trio verio achieva ingenia
    signa avanto aera espree magnetom cohort cohorts study studies dataset datasets collection database
    db ds group groups grp batch arm part subset chunk disc disk disks release shard ge siemens philips
    toshiba canon hitachi patients subjects controls control-group healthy diseased hc hgg lgg men met
    ped tumor tumour tumors healthycontrols normals cases volunteers
    """
)
# Sites in the strict sense, which also scope ids before them: 001_siteB.
PLACE = word_set("site sites center centre hospital hosp clinic institute institution")
# Words with their own number; after other words (HC_01, patients_3) it is a person's.
NUMBERED_SITE = PLACE | word_set(
    """
    study inst univ university lab scanner location cohort dataset ds group grp batch arm part subset chunk disc
    disk release shard vendor collection db region country city
    """
)
SPLIT = word_set(
    """
    train training val valid validation test testing imagestr imagests imagesval trainset testset
    holdout
    """
)
# Cross-validation: the same people in different parts.
FOLD = word_set("fold folds kfold")
SPLIT |= FOLD

PROCESSED = word_set(
    """
    n3 n4 n4itk bias biascorr biascorrected biasfield corrected corr correction brain brains bet bet2
    betted skull skullstrip skullstripped stripped strip ss noskull brainextracted extracted extraction
    hdbet synthstrip defaced deface defacing faceless face anonymized anonymised anonym anon anonymous
    deidentified removed mni mni152 mni305 talairach tal t88 atlas template std standard stereotaxic
    acpc dc restore restored fnirt flirt ants warped warp reg registered registration coreg coregistered
    realigned aligned align resampled resample resliced reslice rsl normalized normalised norm nu orig
    original rawavg raw unprocessed processed proc preproc preprocessed prepro final denoised denoise
    smooth smoothed cropped crop reoriented reorient ro nifti nii niftis nrrd dicom dicoms dcm mgz
    img hdr analyze masked sbj fov lia ras lps lpi rai iso1mm average avg mean gfc distcorr gdc nd dis2d
    dis3d ndis moco sub1mm lesion lesions wmh segm pveseg tissue csf gm wm synthseg zscore scaled
    histmatch matched fullbrain wholebrain clean cleaned qc passed desc best copy native linear
    nonlinear affine rigid space res cat12 spm fsl freesurfer fs6 fs7 hist histogram unring unringed
    gibbs degibbs syn bfc field intensity standardized standardised co rigidreg oriented converted gz
    out upsampled downsampled zscored normed whitestripe nyul nonlin only no with without unbiased
    debiased preprocessing skullstripping hd pydeface quickshear fmriprep mriqc samseg synthsr robustfov
    noneck nohead deoblique deobliqued conform conformed las gradwarp gradunwarp gw dewarped unwarped
    inversewarped b1 b1corr to in from of and by on dcm2nii dcm2niix tomni prep pp2 padded unmasked
    rescaled histeq equalized equalised interpolated reconstructed recon mprageavg finalsurfs spm12
    sorted clipped cut trimmed thresholded filtered nlm inhomogeneity homogenized homogenised
    """
)

# Folders and words that hold or count files of anyone.
GENERIC = word_set(
    """
    scan scans image images imgs picture pictures pic photo series ser volume volumes vol vols head
    heads anat anatomy anatomic anatomical structural struct mr mri mris data files file output outputs
    input inputs derivatives sourcedata rawdata nifti slice slices frame frames png jpg jpeg tif tiff
    dicomdir export exports download downloads all new old misc other unnamed untitled default folder
    dir main work echo ech coil channel modality modalities sequence sequences scanfiles assessors
    resources mask masks seg label labels segmentation aseg ribbon surf stats tmp stack z rows results
    res left right lh rh medical neuro neuroimaging imaging radiology weighted map maps bids t
    """
)

# Words before a person's number or name.
MARKER = word_set(
    """
    sub subj subject patient pat pt participant person case cas volunteer proband respondent
    individual client control ctrl ctl hc healthycontrol normal subjectid patientid pid sid subjid mrn
    id human donor animal pp ppt p s
    """
)
STRONG_MARKER = MARKER - {"s", "hc", "ctl", "control", "ctrl", "id", "normal"}

UNITS = {
    "noise": word_set("t mm um d ch deg hz p iso mm3 cm ms khz tesla bit fold"),
    "session": word_set(
        "h hr hrs m mo mos mon month months mth w wk wks week weeks y yr yrs year years d day days nd rd st th"
    ),
}
# BIDS entities whose value doesn't identify the subject.
ENTITIES = word_set(
    """
    acq ce rec dir run echo part flip inv mt space desc res den label hemi split recording chunk task
    proc mod trc sample stain from to mode
    """
)
