"""The driver of a real node, on trio: links between peers, timers, storage threads, the public ``Node``."""
