"""What the registered functions say of themselves, read from their source without running it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A step in its order; other functions follow in alphabetical order.
STEPS = (
    "render_recipe",
    "fetch_payload",
    "build_image",
    "verify_image",
    "register_container",
    "report_failure",
)
# What ends a step, and where its code, sentence and hint stand among the arguments.
FAILING = {"StepFailed": (0, 1, 2), "SpecRefused": (2, 1, 3)}


class Sentence(NamedTuple):
    """One sentence a user may read, and the hint below it."""

    message: str
    hint: str


def by_code(functions: Path) -> dict[str, list[Sentence]]:
    """Every failure whose code and sentence are written out, by its code."""
    found: dict[str, list[Sentence]] = {}
    for path in sorted(functions.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = _texts(tree)
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if not isinstance(call.func, ast.Name) or call.func.id not in FAILING:
                continue
            code, message, hint = (_argument(call, place, texts) for place in FAILING[call.func.id])
            if re.fullmatch(r"[a-z_]+", code) and message.strip(" …"):
                hint = "" if call.func.id == "SpecRefused" else hint
                found.setdefault(code, []).append(Sentence(message, hint))
    for code, sentences in _of_the_recipe(functions).items():
        found.setdefault(code, []).extend(sentences)
    return found


def _texts(tree: ast.Module) -> dict[str, str]:
    """The module's own constants, which calls may name."""
    return {
        target.id: _text(node.value, {})
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value, (ast.Constant, ast.JoinedStr))
    }


def _argument(call: ast.Call, place: int, texts: dict[str, str]) -> str:
    if place < len(call.args):
        return _text(call.args[place], texts)
    named = [word.value for word in call.keywords if word.arg == "hint"]
    return _text(named[0], texts) if named and place == 2 else ""


def _text(node: ast.expr, texts: dict[str, str]) -> str:
    """The text of an expression, with an ellipsis for what is only known when it happens."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, texts) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        inner = node.value
        return texts.get(inner.id, "…") if isinstance(inner, ast.Name) else "…"
    if isinstance(node, ast.Name):
        return texts.get(node.id, "…")
    return "…"


def _of_the_recipe(functions: Path) -> dict[str, list[Sentence]]:
    """What a recipe refuses by itself while it is built, and the hint that the functions add."""
    parts = sorted((functions / "_shared").glob("recipe*.py"))
    recipe = "\n".join(path.read_text(encoding="utf-8") for path in parts)
    hints: dict[str, str] = {}
    for path in functions.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = node.targets if isinstance(node, ast.Assign) else []
            if any(
                isinstance(target, ast.Name) and "hints" in target.id.lower() for target in named
            ):
                hints.update(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    found: dict[str, list[Sentence]] = {}
    for code, _, message in re.findall(r"refuse (\w+) (['\"])(.+)\2", recipe):
        shown = re.sub(r"\$\([^)]*\)|\$\w+|\$\?", "…", message)
        found.setdefault(code, []).append(Sentence(shown, hints.get(code, "")))
    return found


def functions(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, signature and description of each registered function, the steps first."""
    names = [path.stem for path in sorted(folder.glob("[a-z]*.py"))]
    for name in sorted(names, key=lambda n: (STEPS.index(n) if n in STEPS else len(STEPS), n)):
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        entry = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
        said = [ast.get_docstring(tree) or "", ast.get_docstring(entry) or ""]
        signature = f"{name}({ast.unparse(entry.args)})"
        yield name, signature, "\n\n".join(_markdown(text) for text in said)


def _markdown(docstring: str) -> str:
    text = inspect.cleandoc(docstring)
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)
