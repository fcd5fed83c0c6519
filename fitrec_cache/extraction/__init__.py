"""The machinery of `extract`: sharing clips among processes, decoding ahead, embedding, and committing results."""
