"""How arrays are stored on disk: HDF5 files that never change ("parts"), and indexes of them."""
