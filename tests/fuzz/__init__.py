"""Feed damaged input to everything that reads files and messages of strangers: ``make fuzz``."""
