"""What views are asked to agree on: one loss, one file, all pure functions of tensors.

All compute in 32-bit floats, also under autocast, and give the mean over the batch.
"""
