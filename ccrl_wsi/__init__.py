"""Whole slides to nuclei, contrastive cell embeddings, clusters and overlays."""

__version__ = "0.1.0"
