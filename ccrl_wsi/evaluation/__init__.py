"""How good the results are, measured against what people annotated."""
