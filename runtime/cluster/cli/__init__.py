"""The ``hyps-manager`` and ``hyps-worker`` commands."""
