"""From features to a trained head: data in memory, the loop, seeds and folds."""
