"""Frozen pretrained networks, which turn frames into features."""
