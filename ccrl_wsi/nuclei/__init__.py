"""Nuclei: segmenters, outlines and measurements."""
