"""The log as the core sees it: the term of every entry, and the payloads of the newest ones.

Payloads that have left memory are asked for with ``ReadLog``. Source: Raft paper §5.3.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from huton.raft.sizes import LogSizes
from huton.raft.types import Boot, Entry, Index, Snapshot, Term

__all__ = ["RaftLog"]


class RaftLog:
    """Entries ``base_index + 1 .. last_index``; a snapshot stands for those before them.

    Invariants:
        terms never fall along the log, so they are kept as runs;
        the payload window is ``window_first .. last_index`` (empty if ``window_first == last_index + 1``);
        an entry that was appended in this run leaves the window only after it is applied.

    Args:
        boot: what storage recovered; the window starts empty.
        window_bytes_max: payload bytes of *applied* entries kept for slow followers; the oldest
            leave memory beyond it.
    """

    def __init__(self, boot: Boot, window_bytes_max: int) -> None:
        self.base_index = boot.snapshot.index
        self._run_firsts = [run.first_index for run in boot.term_runs]
        self._run_terms = [run.term for run in boot.term_runs]
        self._base_term = boot.snapshot.term
        self._sizes = LogSizes(boot.sizes)
        self._window: list[Entry] = []
        self._window_bytes = 0
        self._window_bytes_max = window_bytes_max
        self.window_first = Index(boot.last_index + 1)
        self.last_index = boot.last_index
        # The largest stamp this log ever held; never lowered, so that cluster time never goes back.
        self.last_stamp = boot.last_stamp

    @property
    def last_term(self) -> Term:
        return self._run_terms[-1] if self._run_terms else self._base_term

    def term_at(self, index: Index) -> Term | None:
        """Return the term of entry *index*, or None where the log holds no such entry.

        The index just before the log has the snapshot's term.
        """
        if index > self.last_index or index < self.base_index:
            return None
        if index == self.base_index:
            return self._base_term
        if index >= self._run_firsts[-1]:
            return self._run_terms[-1]
        return self._run_terms[bisect_right(self._run_firsts, index) - 1]

    def is_up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Return whether a log ending at *last_index*, *last_term* is at least as up-to-date as this one.

        Source: Raft paper §5.4.1: the later last term wins; with equal terms, the longer log.
        """
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add *entries* after the last one."""
        index = self.last_index
        for entry in entries:
            index = Index(index + 1)
            if not self._run_terms or entry.term != self._run_terms[-1]:
                self._run_firsts.append(index)
                self._run_terms.append(entry.term)
            self._window_bytes += len(entry.data)
            self._sizes.add(index, len(entry.data))
            self.last_stamp = max(self.last_stamp, entry.stamp)
        self._window.extend(entries)
        self.last_index = index

    def truncate(self, first: Index) -> None:
        """Drop entry *first* and all after it."""
        keep = max(0, first - self.window_first)
        self._window_bytes -= sum(len(entry.data) for entry in self._window[keep:])
        del self._window[keep:]
        self.window_first = min(self.window_first, first)
        self.last_index = Index(first - 1)
        self._sizes.truncate(first)
        while self._run_firsts and self._run_firsts[-1] >= first:
            self._run_firsts.pop()
            self._run_terms.pop()

    def compact(self, upto: Index) -> None:
        """Forget entry *upto* and all before it but that entry's term; it is in the log, and applied."""
        term = self.term_at(upto)
        assert term is not None, "what is compacted was in the log"
        # The run that goes on behind it begins anew there.
        done = bisect_right(self._run_firsts, upto + 1) - 1
        del self._run_firsts[: max(done, 0)]
        del self._run_terms[: max(done, 0)]
        if upto == self.last_index:
            self._run_firsts.clear()
            self._run_terms.clear()
        elif self._run_firsts:
            self._run_firsts[0] = max(self._run_firsts[0], Index(upto + 1))
        self._base_term = term
        self.base_index = upto
        self._sizes.compact(upto)
        dropped = max(0, upto + 1 - self.window_first)
        self._window_bytes -= sum(len(entry.data) for entry in self._window[:dropped])
        del self._window[:dropped]
        self.window_first = max(self.window_first, Index(upto + 1))

    def restore(self, snapshot: Snapshot) -> None:
        """Begin anew with nothing behind *snapshot*."""
        self._run_firsts.clear()
        self._run_terms.clear()
        self._sizes = LogSizes()
        self._window.clear()
        self._window_bytes = 0
        self.base_index = self.last_index = snapshot.index
        self._base_term = snapshot.term
        self.window_first = Index(snapshot.index + 1)
        self.last_stamp = max(self.last_stamp, snapshot.stamp)

    def last_to_drop(self, entries_kept: int, bytes_kept: int) -> Index:
        """Return up to where the log can be dropped if it has to keep so many of its last entries, or bytes."""
        return max(Index(self.last_index - entries_kept), self._sizes.index_before(bytes_kept))

    def payload(self, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...] | None:
        """Return entries from *first* on, or None if that one has left memory.

        At least one entry, at most up to *last*, and no more than fit into *bytes_max* of data.
        """
        if first < self.window_first:
            return None
        begin = first - self.window_first
        end = begin
        size = 0
        for entry in self._window[begin : last + 1 - self.window_first]:
            size += len(entry.data)
            if size > bytes_max and end > begin:
                break
            end += 1
        return tuple(self._window[begin:end])

    def release(self, applied: Index) -> None:
        """Let the oldest payloads up to *applied* go while the window is over its bound."""
        if self._window_bytes <= self._window_bytes_max:
            return
        # Down to three quarters at once: dropping from the front of a list costs its length.
        target = self._window_bytes_max * 3 // 4
        count = 0
        while self._window_bytes > target and self.window_first + count <= applied:
            self._window_bytes -= len(self._window[count].data)
            count += 1
        del self._window[:count]
        self.window_first = Index(self.window_first + count)

    def last_index_not_above(self, index: Index, term: Term) -> Index:
        """Return the last index up to *index* whose entry has a term not above *term*.

        Where two logs may still agree: a follower answers a rejected AppendEntries with it, and the
        leader takes it again on the answer, so that a rejection skips whole terms on both sides.
        Never below the index just before the log.

        Source: Raft paper §5.3, the optimisation in its last paragraphs; etcd ``findConflictByTerm``.
        """
        index = min(index, self.last_index)
        position = bisect_right(self._run_firsts, index) - 1
        while position >= 0:
            if self._run_terms[position] <= term:
                return index
            index = Index(self._run_firsts[position] - 1)
            position -= 1
        return self.base_index
