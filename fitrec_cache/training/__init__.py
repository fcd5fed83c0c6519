"""From features to trained heads: loading the data into memory, the training loop, seeds and folds."""
