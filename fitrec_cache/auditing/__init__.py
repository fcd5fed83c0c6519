"""Audits of splits: whether two sides share recordings or near-duplicates."""
