"""The replicated state machine: buckets of ordered keys with revisions. It has never heard of Raft."""
