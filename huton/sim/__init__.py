"""The simulator: the replica that ships, on virtual time, under faults that a seed decides."""
