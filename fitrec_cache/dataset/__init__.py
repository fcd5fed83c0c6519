"""What is to be recognised: clips in folders, tables and lists, and how they are split."""
