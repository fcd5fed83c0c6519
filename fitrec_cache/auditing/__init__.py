"""Whether the two sides of a split share recordings or near-duplicates."""
