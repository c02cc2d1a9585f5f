"""Move files and tensors: serve and fetch bundle files, send inputs, keep the journal."""
