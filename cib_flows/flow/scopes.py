"""The names that an expression's own comprehensions bind, for whoever walks it."""

from __future__ import annotations

import ast

__all__ = ["ScopedVisitor"]


class ScopedVisitor(ast.NodeVisitor):
    """Visits an expression, and knows at each node which names are not the document's."""

    def __init__(self) -> None:
        self._bound: list[set[str]] = []

    def is_bound(self, name: str) -> bool:
        """Whether a comprehension around this node gives the name its meaning."""
        return any(name in names for names in self._bound)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node, node.generators)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, node.generators)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node, node.generators)

    def _comprehension(self, node: ast.expr, generators: list[ast.comprehension]) -> None:
        bound: set[str] = set()
        self._bound.append(bound)
        for generator in generators:
            # What is gone through is looked up before its items have a name.
            self.visit(generator.iter)
            bound.update(
                target.id for target in ast.walk(generator.target) if isinstance(target, ast.Name)
            )
            for condition in generator.ifs:
                self.visit(condition)
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.comprehension):
                self.visit(child)
        self._bound.pop()
