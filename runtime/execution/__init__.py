"""Run a bundle's steps in this process, within its memory budget."""
