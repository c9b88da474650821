"""Readers, one file per format, told apart by content in :mod:`mri_transfer.datasets.volumes.volume`.

Each has `describe(start, files, max_bytes)`, what the header says, and `read(blobs, files, max_bytes)`, the voxels as
stored. Both raise BadVolume where a file can't be used and take no more memory than `max_bytes` of voxels need.
"""
