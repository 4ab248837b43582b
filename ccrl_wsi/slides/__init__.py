"""Slides: opening files, their pixel size, where the tissue is."""
