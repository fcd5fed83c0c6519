"""How arrays lie on disk: HDF5 files in immutable parts, and an index of them."""
