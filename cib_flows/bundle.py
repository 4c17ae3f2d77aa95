"""One registered function, with the shared modules it imports, as one source text.

Globus Compute stores a function as text and runs it in an empty namespace, where a relative import
cannot work. Bundling puts ``functions/<name>.py`` behind the ``functions/_shared`` modules it
imports, so that the text stands alone. The text depends on nothing but those files: its sha256 is
the function's version. The last line says that sha256, of everything before it, so that a function
can put its own version on record; ``head -n -1 | sha256sum`` confirms it.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from cib_flows.errors import CibFlowsError

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable
    else:
        from importlib.abc import Traversable

__all__ = [
    "IMAGE_CHECK",
    "BundleError",
    "FunctionBundle",
    "bundle_function",
    "bundle_program",
    "function_names",
    "image_check",
]

FUNCTIONS_PACKAGE = "cib_flows.functions"
# The program's name in an endpoint's folder.
IMAGE_CHECK = "check_image.py"
# What the last line of a bundle binds, over the empty text in functions/_shared/run_folder.py.
VERSION_NAME = "BUNDLE_SHA256"


class BundleError(CibFlowsError):
    """A function's source cannot be made to stand alone; the message names the file and the
    line.
    """


@dataclass(frozen=True)
class FunctionBundle:
    """A function ready to be registered: its source text and what it was made of.

    ``sha256`` is that of the text without its last line, in which it stands. ``modules`` lists the
    files in the order they appear in the text, the entry last.
    """

    name: str
    source: str
    sha256: str
    modules: tuple[str, ...]

    def require_python(self) -> None:
        """Raises ``BundleError`` where the text is no Python: for a look before it is registered."""
        try:
            compile(self.source, f"<bundle of {self.name}>", "exec")
        except SyntaxError as broken:  # cannot happen unless the cutting below is wrong
            raise BundleError(
                f"The bundle of {self.name} is not valid Python: {broken}."
            ) from broken


@dataclass(frozen=True)
class _Module:
    """A parsed source file: what it imports, what it defines, and its text without either's import
    lines.
    """

    path: str
    docstring: str | None
    body: str
    futures: frozenset[str]
    imports: frozenset[tuple[str, str | None, str | None]]
    wanted: tuple[tuple[str, tuple[str, ...], int], ...]
    defined: dict[str, int]


def function_names(root: Traversable | None = None) -> list[str]:
    """The names of all functions that can be registered, in alphabetical order."""
    folder = root or resources.files(FUNCTIONS_PACKAGE)
    return sorted(
        entry.name.removesuffix(".py")
        for entry in folder.iterdir()
        if entry.name.endswith(".py") and not entry.name.startswith("_")
    )


@lru_cache(maxsize=64)
def bundle_function(name: str, root: Traversable | None = None) -> FunctionBundle:
    """The bundle of the function called ``name``.

    ``root`` is the folder to read instead of the installed ``cib_flows.functions``. Raises
    ``BundleError`` when the function, or a module it imports, breaks the rules of a registered
    function.
    """
    folder = root or resources.files(FUNCTIONS_PACKAGE)
    modules: dict[str, _Module] = {}
    _collect(folder, f"{name}.py", modules, ())
    ordered = list(modules.values())
    entry = ordered[-1]
    if name not in entry.defined:
        raise BundleError(f"functions/{name}.py defines no function called {name}.")
    _refuse_collisions(ordered)
    text = _assemble(ordered)
    digest = hashlib.sha256(text.encode()).hexdigest()
    source = f'{text}{VERSION_NAME} = "{digest}"\n'
    return FunctionBundle(name, source, digest, tuple(modules))


def bundle_program(module: str, entry: str, root: Traversable | None = None) -> str:
    """The text of a program: ``functions/<module>.py`` behind what it imports. It calls ``entry`` with its
    arguments and exits with what that returns. ``root`` and what is raised are as for ``bundle_function``.
    """
    modules: dict[str, _Module] = {}
    _collect(root or resources.files(FUNCTIONS_PACKAGE), f"{module}.py", modules, ())
    ordered = list(modules.values())
    if entry not in ordered[-1].defined:
        raise BundleError(f"functions/{module}.py defines no function called {entry}.")
    _refuse_collisions(ordered)
    return (
        f'{_assemble(ordered)}\nif __name__ == "__main__":\n    sys.exit({entry}(sys.argv[1:]))\n'
    )


def image_check(root: Traversable | None = None) -> str:
    """The program ``check_image.py`` of endpoint templates: whether workers may start in an image."""
    return bundle_program("_shared/worker_start", "check_image", root)


def _collect(
    folder: Traversable, path: str, modules: dict[str, _Module], trail: tuple[str, ...]
) -> None:
    """Adds the module at ``path`` behind everything it imports."""
    if path in modules:
        return
    if path in trail:
        raise BundleError(f"functions/{path} imports itself through {' and '.join(trail)}.")
    entry = folder.joinpath(*path.split("/"))
    if not entry.is_file():
        importer = f", which functions/{trail[-1]} imports" if trail else ""
        raise BundleError(f"There is no functions/{path}{importer}.")
    module = _parse(path, entry.read_text(encoding="utf-8"))
    for target, names, line in module.wanted:
        _collect(folder, target, modules, (*trail, path))
        for name in names:
            if name not in modules[target].defined:
                raise BundleError(
                    f"functions/{path}, line {line}, imports {name}, which functions/{target} "
                    "does not define."
                )
    modules[path] = module


@lru_cache(maxsize=256)  # most modules are in most bundles
def _parse(path: str, text: str) -> _Module:
    try:
        tree = ast.parse(text, filename=path)
    except SyntaxError as broken:
        raise BundleError(
            f"functions/{path}, line {broken.lineno}, is not valid Python: {broken.msg}."
        ) from broken
    lines = text.splitlines()
    futures: set[str] = set()
    imports: set[tuple[str, str | None, str | None]] = set()
    wanted: list[tuple[str, tuple[str, ...], int]] = []
    drop: set[int] = set()
    docstring = ast.get_docstring(tree)

    for position, node in enumerate(tree.body):
        cut = False
        if position == 0 and docstring is not None:
            cut = True
        elif isinstance(node, ast.Import):
            for name in node.names:
                _require_stdlib(path, node, name.name)
                imports.add((name.name, None, name.asname))
            cut = True
        elif isinstance(node, ast.ImportFrom):
            cut = True
            if node.level:
                names = _relative_names(path, node)
                wanted.append((_relative_target(path, node), names, node.lineno))
            elif node.module == "__future__":
                futures.update(name.name for name in node.names)
            else:
                _require_stdlib(path, node, node.module or "")
                for name in node.names:
                    if name.name == "*":
                        raise _rule(path, node, "imports * from a module; name what is needed")
                    imports.add((node.module or "", name.name, name.asname))
        elif _is_all(node):
            cut = True
        else:
            _check_nested_imports(path, node)
        if cut:
            drop.update(_own_lines(path, node, tree, lines))

    body = "\n".join(line for number, line in enumerate(lines, 1) if number not in drop).strip("\n")
    return _Module(
        path=path,
        docstring=docstring,
        body=body,
        futures=frozenset(futures),
        imports=frozenset(imports),
        wanted=tuple(wanted),
        defined=dict(_bound_names(tree.body)),
    )


def _relative_names(path: str, node: ast.ImportFrom) -> tuple[str, ...]:
    for name in node.names:
        if name.asname is not None:
            raise _rule(path, node, f"renames {name.name} with 'as', which a bundle cannot keep")
        if name.name == "*":
            raise _rule(path, node, "imports * from a module; name what is needed")
    return tuple(name.name for name in node.names)


def _relative_target(path: str, node: ast.ImportFrom) -> str:
    folder = path.split("/")[: -node.level]
    if node.module is None or len(path.split("/")) < node.level:
        raise _rule(
            path, node, "imports a module as a whole; import the names that are needed from it"
        )
    return "/".join([*folder, *node.module.split(".")]) + ".py"


def _check_nested_imports(path: str, node: ast.AST) -> None:
    """Imports inside functions or branches stay where they are, so they must be of the standard
    library.
    """
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            for name in inner.names:
                _require_stdlib(path, inner, name.name)
        elif isinstance(inner, ast.ImportFrom):
            if inner.level:
                raise _rule(path, inner, "has a relative import that is not at the top of the file")
            _require_stdlib(path, inner, inner.module or "")


def _require_stdlib(path: str, node: ast.AST, module: str) -> None:
    if module.partition(".")[0] not in sys.stdlib_module_names:
        raise _rule(
            path,
            node,
            f"imports {module}, which is not in the standard library; the endpoint need not have "
            "it",
        )


def _rule(path: str, node: ast.AST, what: str) -> BundleError:
    return BundleError(f"functions/{path}, line {getattr(node, 'lineno', 0)}, {what}.")


def _is_all(node: ast.stmt) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _own_lines(path: str, node: ast.stmt, tree: ast.Module, lines: list[str]) -> range:
    """The lines that ``node`` takes up, which no other statement may share."""
    taken = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    for other in tree.body:
        if other is not node and other.lineno <= taken[-1] and (other.end_lineno or 0) >= taken[0]:
            raise _rule(path, node, "shares its line with another statement")
    return taken


def _bound_names(body: list[ast.stmt]) -> Iterator[tuple[str, int]]:
    """Names that the statements of a module bind at its top level, imports from the standard
    library aside.
    """
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            for field in ("body", "orelse", "finalbody"):
                yield from _bound_names(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from _bound_names(handler.body)
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for inner in ast.walk(node):
                if (
                    isinstance(inner, ast.Name)
                    and isinstance(inner.ctx, ast.Store)
                    and inner.id != "__all__"
                ):
                    yield inner.id, node.lineno


def _refuse_collisions(modules: list[_Module]) -> None:
    owner: dict[str, str] = {}
    meaning: dict[str, tuple[str, str | None]] = {}
    for module in modules:
        for name in module.defined:
            if name in owner:
                raise BundleError(
                    f"functions/{owner[name]} and functions/{module.path} both define {name}; "
                    "a bundle holds them in one namespace, so rename one."
                )
            owner[name] = module.path
    for module in modules:
        for source, member, alias in sorted(module.imports, key=str):
            bound = alias or member or source.partition(".")[0]
            what = (source if member or alias else source.partition(".")[0], member)
            if bound in owner:
                raise BundleError(
                    f"functions/{module.path} imports {bound}, which functions/{owner[bound]} "
                    "defines as "
                    "something else; a bundle holds them in one namespace, so rename one."
                )
            if meaning.setdefault(bound, what) != what:
                raise BundleError(
                    f"functions/{module.path} imports {bound} from another place than the other "
                    "modules "
                    "of its bundle; import it in the same way everywhere."
                )


def _assemble(modules: list[_Module]) -> str:
    entry = modules[-1]
    parts: list[str] = []
    if entry.docstring is not None:
        parts.append(_as_docstring(entry.docstring))
    futures = sorted({future for module in modules for future in module.futures})
    if futures:
        parts.append(f"from __future__ import {', '.join(futures)}")
    imports = {imported for module in modules for imported in module.imports}
    if imports:
        parts.append("\n".join(_import_lines(imports)))
    for module in modules:
        if module is not entry:
            parts.append(_as_comment(f"{module.path}: {module.docstring or ''}"))
        elif len(modules) > 1:
            parts.append(_as_comment(module.path))
        if module.body:
            parts.append(module.body)
    return "\n\n".join(parts) + "\n"


def _import_lines(imports: set[tuple[str, str | None, str | None]]) -> Iterator[str]:
    plain = sorted((source, alias or "") for source, member, alias in imports if member is None)
    for source, short in plain:
        yield f"import {source} as {short}" if short else f"import {source}"
    members: dict[str, set[str]] = {}
    for source, member, alias in imports:
        if member is not None:
            members.setdefault(source, set()).add(f"{member} as {alias}" if alias else member)
    for source in sorted(members):
        yield f"from {source} import {', '.join(sorted(members[source]))}"


def _as_docstring(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if quoted.endswith('"'):
        quoted = quoted[:-1] + '\\"'
    return f'"""{quoted}\n"""' if "\n" in text else f'"""{quoted}"""'


def _as_comment(text: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in text.strip().splitlines())
