"""Data sets in which people outlined and named nuclei, as they lie on disk."""
