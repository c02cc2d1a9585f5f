"""Run a bundle on a Dask cluster (``hyps[dask]``)."""
