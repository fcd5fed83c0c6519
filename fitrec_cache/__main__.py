"""``python -m fitrec_cache`` runs the command ``fitrec-cache``."""

from fitrec_cache.cli import main

if __name__ == "__main__":
    main()
