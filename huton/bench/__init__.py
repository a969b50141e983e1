"""``python -m huton.bench``: a cluster of huton against one of etcd, on this machine, in the same run."""
