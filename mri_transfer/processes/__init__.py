"""Work in other processes, on this machine or a Dask cluster. Knows nothing of the work itself."""
