"""Run folders: what they contain, and how they are read again."""
