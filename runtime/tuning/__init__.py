"""Tune bundles: have onnxruntime optimise every partition for this processor, and keep what it made."""
