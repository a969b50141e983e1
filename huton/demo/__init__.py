"""``huton demo``: a cluster of three on this machine, and a short tour of what it does."""
