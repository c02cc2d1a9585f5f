"""Define the records of the manifest, a file for each kind, and the types of their fields."""
