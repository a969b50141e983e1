"""Log and state of a node: the interface, LMDB, memory, and the overlay over the last checkpoint."""
