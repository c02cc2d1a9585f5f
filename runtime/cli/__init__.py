"""The ``hyps-run`` command."""
