"""Embeddings: encoders and their checkpoints."""
