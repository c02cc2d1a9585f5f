"""What is shown of a model or a bundle: one HTML page, and its plots as files."""
