"""What can be trained and how, by name: variants, recipes, and what the paper says."""
