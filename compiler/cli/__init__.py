"""The ``hypsc`` command: its commands, options and what it prints."""
