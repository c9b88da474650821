"""Readers, one file per format, selected by content in :mod:`mri_transfer.datasets.volumes.volume`.

Each has `describe(start, files, max_bytes)` for the header and `read(blobs, files, max_bytes)` for the voxels as
stored. Both raise BadVolume if a file can't be used, and take no more memory than `max_bytes` of voxels need.
"""
