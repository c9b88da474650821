"""DICOM: headers to series, series to stacks, and whose they are (extra `[dicom]`)."""
