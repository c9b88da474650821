"""DICOM: headers to series, series to stacks, and their subjects (extra `[dicom]`)."""
