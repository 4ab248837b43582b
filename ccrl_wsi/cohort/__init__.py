"""Cohort: what the compositions of slides and patients say, as numbers."""
