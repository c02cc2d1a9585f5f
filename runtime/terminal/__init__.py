"""Print text, tables and progress on a terminal; end a command with the right exit code."""
