"""The worker: it holds sub-bundles and computes them when their inputs have arrived."""
