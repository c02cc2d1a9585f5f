"""Analyse, rewrite and plan models: pure functions over a model's structure, which touch no file."""
