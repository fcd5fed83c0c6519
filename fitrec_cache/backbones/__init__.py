"""Frozen pretrained networks: from frames to features."""
