"""Clusters: one k-means for the cohort."""
