"""The networks that are trained: from features to logits and attention."""
