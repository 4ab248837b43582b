"""Other ways to describe a nucleus, to compare with: floors and the paper's baselines."""
