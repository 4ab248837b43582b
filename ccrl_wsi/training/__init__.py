"""Training: contrastive learning of cell representations."""
