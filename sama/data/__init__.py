"""Sources, splits, noise, overlap, and the manifest that stages read."""
