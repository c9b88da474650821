"""Work in other processes, of this machine or of a Dask cluster. Knows nothing of what the work is."""
