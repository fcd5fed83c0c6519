"""What can be trained and how, by name: variants, recipes, and the paper's settings and results."""
