"""Which backend sequences hold which tokens, and how many cache cells that costs.

A radix tree over all sequences, running and kept: an edge is a run of tokens that its owners share physically, since
one was copied from the other. So the longest cached beginning of a prompt is one walk from the root, and the number of
cells in use is the sum of the edges. (The idea of a radix tree over KV caches: Zheng et al. 2024, "SGLang".)

What a token leaves in the cache depends on the weights as well, so sequences that are computed with different adapters
share nothing: there is a root for each adapter.

Pure bookkeeping: no backend, no clock, no threads.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence


class _Node:
    __slots__ = ("children", "owners", "parent", "tokens")

    def __init__(self, parent: _Node | None, tokens: list[int], owners: set[int]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.owners = owners
        # Several children may begin with one token, where two sequences computed the same text at the same time.
        self.children: dict[int, list[_Node]] = {}

    def add(self, child: _Node) -> None:
        child.parent = self
        self.children.setdefault(child.tokens[0], []).append(child)

    def remove(self, child: _Node) -> None:
        siblings = self.children[child.tokens[0]]
        siblings.remove(child)
        if not siblings:
            del self.children[child.tokens[0]]


class PrefixTree:
    """The tokens of every non-empty sequence. Sequences are the backend's numbers.

    ``adapter`` is whatever tells one adapter from another, None for the model alone.
    """

    def __init__(self) -> None:
        self._roots: dict[Hashable, _Node] = {}
        self._tips: dict[int, _Node] = {}
        self._lengths: dict[int, int] = {}
        self.cells = 0
        """Cache cells in use: tokens of all sequences, shared ones counted once."""

    def length(self, sequence: int) -> int:
        """Tokens that a sequence holds; 0 for an empty one."""
        return self._lengths.get(sequence, 0)

    def match(
        self, tokens: Sequence[int], limit: int, adapter: Hashable = None, *, whole: bool = False
    ) -> tuple[int | None, int]:
        """A sequence of that adapter that begins like ``tokens``, and for how many of the first ``limit`` tokens.

        ``whole`` admits only sequences all of whose tokens agree: a recurrent state cannot be cut. (None, 0) where
        nothing agrees.
        """
        best: tuple[int | None, int] = (None, 0)
        root = self._roots.get(adapter)
        if root is None:
            return best
        for node, end, complete in _agreeing(root, list(tokens[:limit])):
            if end > best[1]:
                owners: Iterable[int] = node.owners
                if whole:
                    owners = [owner for owner in node.owners if complete and self._tips[owner] is node]
                best = next(((owner, end) for owner in owners), best)
        return best

    def share(self, source: int, target: int, length: int) -> None:
        """Record that the empty ``target`` was made a copy of the first ``length`` tokens of ``source``."""
        node = self._tips[source]
        end = self._lengths[source]
        while end - len(node.tokens) >= length:
            end -= len(node.tokens)
            node = _parent(node)
        if end > length:
            node = self._split(node, len(node.tokens) - (end - length))
        self._tips[target] = node
        self._lengths[target] = length
        step: _Node | None = node
        while step is not None and step.parent is not None:
            step.owners.add(target)
            step = step.parent

    def append(self, sequence: int, tokens: Sequence[int], adapter: Hashable = None) -> None:
        """Record newly computed tokens of a sequence; all of a sequence's are computed with one adapter."""
        if not tokens:
            return
        tip = self._tips.get(sequence)
        if tip is None:
            tip = self._roots.setdefault(adapter, _Node(None, [], set()))
        if tip.parent is not None and len(tip.owners) == 1 and not tip.children:
            tip.tokens.extend(tokens)
        else:
            child = _Node(tip, list(tokens), {sequence})
            tip.add(child)
            self._tips[sequence] = child
        self._lengths[sequence] = self._lengths.get(sequence, 0) + len(tokens)
        self.cells += len(tokens)

    def drop(self, sequence: int) -> None:
        """Record that a sequence was emptied."""
        node: _Node | None = self._tips.pop(sequence, None)
        self._lengths.pop(sequence, None)
        while node is not None and node.parent is not None:
            parent = node.parent
            node.owners.discard(sequence)
            if node.owners:
                self._merge(node)
            else:
                parent.remove(node)
                self.cells -= len(node.tokens)
            node = parent
        if node is not None and not node.children:
            self._roots = {adapter: root for adapter, root in self._roots.items() if root is not node}

    def alike(self, sequence: int) -> tuple[set[int], set[int]]:
        """Other sequences that begin with all that this one holds, and others all of which is a beginning of this one.

        Tokens count here, not cells: two may have computed the same. All are of this one's adapter.
        """
        around: set[int] = set()
        inside: set[int] = set()
        root, tokens = self._path(sequence)
        for node, end, complete in _agreeing(root, tokens):
            if end == len(tokens):
                around |= node.owners
            if complete:
                inside |= {owner for owner in node.owners if self._tips[owner] is node}
        return around - {sequence}, inside - {sequence}

    def cells_of(self, sequences: Iterable[int]) -> int:
        """Cells that would stay in use if only these sequences were kept."""
        counted: set[int] = set()
        cells = 0
        for sequence in sequences:
            node: _Node | None = self._tips.get(sequence)
            while node is not None and node.parent is not None and id(node) not in counted:
                counted.add(id(node))
                cells += len(node.tokens)
                node = node.parent
        return cells

    def _path(self, sequence: int) -> tuple[_Node | None, list[int]]:
        """A sequence's root and its tokens."""
        edges: list[list[int]] = []
        node: _Node | None = self._tips.get(sequence)
        root = node
        while node is not None:
            edges.append(node.tokens)
            root, node = node, node.parent
        return root, [token for edge in reversed(edges) for token in edge]

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut an edge in two; returns the upper part, which holds its first ``at`` tokens."""
        parent = _parent(node)
        parent.remove(node)
        upper = _Node(parent, node.tokens[:at], set(node.owners))
        parent.add(upper)
        node.tokens = node.tokens[at:]
        upper.add(node)
        return upper

    def _merge(self, node: _Node) -> None:
        """Join an edge with its only child where both have the same owners, so that paths stay short."""
        if len(node.children) != 1:
            return
        (siblings,) = node.children.values()
        child = siblings[0]
        if len(siblings) != 1 or child.owners != node.owners:
            return
        node.tokens.extend(child.tokens)
        node.children = child.children
        for grandchildren in node.children.values():
            for grandchild in grandchildren:
                grandchild.parent = node
        for owner in node.owners:
            if self._tips[owner] is child:
                self._tips[owner] = node


def common_prefix(left: Sequence[int], right: Sequence[int], start: int = 0) -> int:
    """How many first tokens two lists share, given that the first ``start`` agree."""
    end = min(len(left), len(right))
    if left[start:end] == right[start:end]:
        return end
    low, high = start, end
    # Comparing slices is done in C; halving finds the first difference in few of them.
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _parent(node: _Node) -> _Node:
    """The node above one that is no root."""
    return node if node.parent is None else node.parent


def _agreeing(root: _Node | None, tokens: list[int]) -> Iterator[tuple[_Node, int, bool]]:
    """Every edge that begins on the path of ``tokens``: where it ends to agree, and whether all of it agrees."""
    pending = [(root, 0)] if root is not None and tokens else []
    while pending:
        node, position = pending.pop()
        for child in node.children.get(tokens[position], ()):
            agreed = _agreement(child.tokens, tokens, position)
            end, complete = position + agreed, agreed == len(child.tokens)
            yield child, end, complete
            if complete and end < len(tokens):
                pending.append((child, end))


def _agreement(edge: list[int], tokens: list[int], position: int) -> int:
    """How many tokens of an edge agree with ``tokens`` from ``position`` on."""
    window = tokens[position : position + len(edge)]
    return common_prefix(edge, window)
