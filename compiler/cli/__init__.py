"""Define the ``hypsc`` command: one module per command, their shared options, and their output."""
