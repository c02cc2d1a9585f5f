"""A bundle on an existing engine: Dask's scheduler and workers (``hyps[dask]``)."""
