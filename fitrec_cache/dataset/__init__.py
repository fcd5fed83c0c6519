"""The clips to be recognised: finding them in folders, tables and lists, and splitting them."""
