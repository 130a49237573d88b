"""Which names and parameters of other packages a file uses, and whether those packages' sources have them.

Everything works on syntax trees, and nothing is imported. Followed are imports (also through re-exports), attributes of
imported modules and classes, calls of what they resolve to, classes derived from theirs (``self``, ``super()``,
overridden and abstract methods), and assignments to their names. What such an analysis cannot see (most values' types,
names in strings) is passed over without a word; the caller lists that part by hand.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from source_trees import Tree

Function = ast.FunctionDef | ast.AsyncFunctionDef
# Bases from elsewhere that add no members a class could be asked for.
PLAIN_BASES = {"ABC", "object", "Protocol", "Generic", "NamedTuple", "TypedDict"}
FIELD_DECORATORS = {"dataclass", "config"}
FIELD_BASES = {"BaseModel", "Struct", "BaseConfig"}


@dataclass(frozen=True)
class Symbol:
    """Where a name is defined. ``node`` is None for a value of another package, about which nothing is known."""

    module: str
    node: ast.AST | None
    is_instance: bool = False


UNKNOWN = Symbol("", None)


@dataclass
class Members:
    """What a class has: its own and its bases' members, the nearest first; ``open``: a base is out of sight."""

    found: dict[str, Symbol] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)
    has_fields: bool = False
    open: bool = False


class Library:
    """The sources of several packages, by package name."""

    def __init__(self, trees: Mapping[str, Tree]) -> None:
        self._trees = trees
        self._modules: dict[str, tuple[ast.Module, bool] | None] = {}

    def knows(self, module: str) -> bool:
        return module.split(".")[0] in self._trees

    def parsed(self, module: str) -> tuple[ast.Module, bool] | None:
        """A module's tree and whether it is a package; None if there is no such module."""
        if module not in self._modules:
            path, tree = module.replace(".", "/"), self._trees[module.split(".")[0]]
            plain = tree.text(f"{path}.py")
            text = plain if plain is not None else tree.text(f"{path}/__init__.py")
            self._modules[module] = None if text is None else (ast.parse(text), plain is None)
        return self._modules[module]

    def resolve(self, module: str, name: str) -> Symbol | None:
        """The definition of ``module.name``; None if there is none."""
        return self._resolve(module, name, frozenset())

    def _resolve(self, module: str, name: str, seen: frozenset[tuple[str, str]]) -> Symbol | None:
        if not self.knows(module):
            return UNKNOWN
        if (module, name) in seen or (parsed := self.parsed(module)) is None:
            return None
        seen |= {(module, name)}
        for node in _statements(parsed[0].body):
            if isinstance(node, ast.ClassDef | Function) and node.name == name:
                return Symbol(module, node)
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and name in _assigned(node):
                return Symbol(module, node)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if name == (alias.asname or alias.name.split(".")[0]):
                        return self.module_symbol(alias.name if alias.asname else name)
            if isinstance(node, ast.ImportFrom):
                source = self.absolute(module, node)
                for alias in node.names:
                    if alias.name == "*" and (found := self._resolve(source, name, seen)):
                        return found
                    if name == (alias.asname or alias.name) and alias.name != "*":
                        return self._resolve(source, alias.name, seen)
        return self.module_symbol(f"{module}.{name}") if parsed[1] else None

    def module_symbol(self, module: str) -> Symbol | None:
        if not self.knows(module):
            return UNKNOWN
        parsed = self.parsed(module)
        return None if parsed is None else Symbol(module, parsed[0])

    def absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parsed = self.parsed(module)
        assert parsed is not None
        keep = module.split(".")[: len(module.split(".")) - node.level + parsed[1]]
        return ".".join([*keep, *([node.module] if node.module else [])])

    def evaluate(self, module: str, expression: ast.AST) -> Symbol | None:
        """What a dotted name at module level means; None where that is not known."""
        if isinstance(expression, ast.Name):
            if expression.id in PLAIN_BASES or hasattr(builtins, expression.id):
                return None
            return self.resolve(module, expression.id)
        if isinstance(expression, ast.Attribute):
            owner = self.evaluate(module, expression.value)
            return None if owner is None else self.attribute(owner, expression.attr)
        if isinstance(expression, ast.Subscript):
            return self.evaluate(module, expression.value)
        return None

    def attribute(self, owner: Symbol, name: str) -> Symbol | None:
        """``owner.name``; None if the source does not have it."""
        if isinstance(owner.node, ast.Module):
            return self.resolve(owner.module, name)
        if isinstance(owner.node, ast.ClassDef):
            members = self.members(owner)
            found = members.found.get(name)
            return found if found is not None else UNKNOWN if members.open or name.startswith("__") else None
        return UNKNOWN

    def members(self, owner: Symbol, extra: Sequence[Symbol] = ()) -> Members:
        """Members of a class; ``extra`` are classes that are mixed in at run time."""
        members = Members()
        self._gather(owner, members, set())
        for mixed in extra:
            self._gather(mixed, members, set())
        return members

    def _gather(self, owner: Symbol, members: Members, seen: set[int]) -> None:
        node = owner.node
        assert isinstance(node, ast.ClassDef)
        if id(node) in seen:
            return
        seen.add(id(node))
        for name, member in _own_members(node):
            members.found.setdefault(name, Symbol(owner.module, member))
        for base in node.bases:
            name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
            found = self.evaluate(owner.module, base)
            if found is not None and isinstance(found.node, ast.ClassDef):
                self._gather(found, members, seen)
            elif name in FIELD_BASES:
                members.has_fields = True
            elif name not in PLAIN_BASES:
                members.open = True
        decorators = {part.id for item in node.decorator_list for part in ast.walk(item) if isinstance(part, ast.Name)}
        members.has_fields |= bool(decorators & FIELD_DECORATORS)
        members.fields += [
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        ]


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module or class, also those under conditions."""
    for node in body:
        yield node
        for block in ("body", "orelse", "finalbody") if isinstance(node, ast.If | ast.Try | ast.With) else ():
            yield from _statements(getattr(node, block, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _assigned(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def _own_members(node: ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    for item in _statements(node.body):
        if isinstance(item, ast.ClassDef | Function):
            yield item.name, item
        elif isinstance(item, ast.Assign | ast.AnnAssign):
            yield from ((name, item) for name in _assigned(item))
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and _is_self(part.value):
            yield part.attr, part


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "instance")


def _is_super(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


# -- calls ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """Arguments of a call: how many by position, which by name; ``*`` and ``**`` may stand for any others."""

    positional: int = 0
    keywords: tuple[str, ...] = ()
    star: bool = False
    double_star: bool = False

    @staticmethod
    def of(node: ast.Call) -> Call:
        return Call(
            positional=sum(not isinstance(a, ast.Starred) for a in node.args),
            keywords=tuple(k.arg for k in node.keywords if k.arg is not None),
            star=any(isinstance(a, ast.Starred) for a in node.args),
            double_star=any(k.arg is None for k in node.keywords),
        )


def refusal(library: Library, target: Symbol, call: Call) -> str | None:
    """Why ``target`` does not take the call, or None."""
    if isinstance(target.node, Function):
        bound = _is_method(target.node) and not _is_static(target.node)
        return _refused_by(target.node.args, call, skip=int(bound))
    if isinstance(target.node, ast.ClassDef) and not target.is_instance:
        members = library.members(target)
        init = members.found.get("__init__")
        if init is not None and isinstance(init.node, Function):
            return _refused_by(init.node.args, call, skip=1)
        if members.has_fields:
            unknown = [name for name in call.keywords if name not in members.fields]
            return f"has no field {', '.join(unknown)}" if unknown else None
    return None


def _is_method(node: Function) -> bool:
    return bool(node.args.args) and node.args.args[0].arg in ("self", "cls")


def _is_static(node: Function) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)


def _refused_by(signature: ast.arguments, call: Call, skip: int) -> str | None:
    names = [a.arg for a in [*signature.posonlyargs, *signature.args]][skip:]
    named = {*names[max(len(signature.posonlyargs) - skip, 0) :], *(a.arg for a in signature.kwonlyargs)}
    if unknown := [k for k in call.keywords if k not in named and signature.kwarg is None]:
        return f"has no parameter {', '.join(unknown)}"
    if call.positional > len(names) and signature.vararg is None:
        return f"takes {len(names)} arguments by position, not {call.positional}"
    if twice := [k for k in call.keywords if k in names[: call.positional]]:
        return f"gets {', '.join(twice)} twice"
    required = names[call.positional : len(names) - len(signature.defaults)]
    required += [a.arg for a, d in zip(signature.kwonlyargs, signature.kw_defaults, strict=True) if d is None]
    missing = [] if call.star or call.double_star else [name for name in required if name not in call.keywords]
    return f"needs {', '.join(missing)}" if missing else None


def override_conflict(base: Function, ours: Function) -> str | None:
    """Why a caller of ``base`` could not call ``ours`` in its place, or None."""
    if isinstance(base, ast.AsyncFunctionDef) != isinstance(ours, ast.AsyncFunctionDef):
        return "one is async, the other is not"
    theirs, mine = base.args, ours.args
    given = [a.arg for a in [*theirs.args[1:], *theirs.kwonlyargs]]
    taken = [a.arg for a in [*mine.args[1:], *mine.kwonlyargs]]
    if lost := [name for name in given if name not in taken and mine.kwarg is None]:
        return f"does not take {', '.join(lost)}"
    optional = {a.arg for a in mine.args[len(mine.args) - len(mine.defaults) :]}
    optional |= {a.arg for a, d in zip(mine.kwonlyargs, mine.kw_defaults, strict=True) if d is not None}
    if added := [name for name in taken if name not in given and name not in optional and theirs.kwarg is None]:
        return f"asks for {', '.join(added)}, which is never given"
    return None


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rules:
    """What the analysis is told.

    Args:
        packages: only uses of these are checked.
        mixed_into: ``module:Class`` to the class that it is mixed into at run time.
        types: an attribute ``self.<name>`` to the ``module:Class`` of its value.
        dynamic: ``module:Class`` whose members are made at run time.
        called: names by which our own code calls methods; a method that overrides nothing must be among them.
        skip_guarded: leave out what stands in a ``try`` or under a condition.
    """

    packages: tuple[str, ...]
    mixed_into: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    dynamic: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    skip_guarded: bool = False


def lookup(library: Library, target: str) -> Symbol | None:
    """``module:Class.member`` as a symbol; None if the sources lack any part of it."""
    module, _, path = target.partition(":")
    found = library.module_symbol(module)
    for part in path.split(".") if path else ():
        found = library.attribute(found, part) if found is not None else None
    return found


def problems(library: Library, module: str, rules: Rules) -> list[str]:
    """Everything in ``module`` that the checked packages' sources do not have or do not take."""
    parsed = library.parsed(module)
    assert parsed is not None, module
    visitor = _Uses(library, module, rules)
    visitor.visit(parsed[0])
    return visitor.found


class _Uses(ast.NodeVisitor):
    def __init__(self, library: Library, module: str, rules: Rules) -> None:
        self.found: list[str] = []
        self._library, self._module, self._rules = library, module, rules
        self._imports: dict[str, Symbol] = {}
        # Per function, its own names; those whose class is plain to see with it.
        self._locals: list[dict[str, Symbol | None]] = []
        self._classes: list[Symbol] = []

    # Scopes.

    def visit_Try(self, node: ast.Try) -> None:
        if not self._rules.skip_guarded:
            self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        if not self._rules.skip_guarded or self._locals:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: Function) -> None:
        arguments = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
        names = {argument.arg: self._instance(argument.annotation) for argument in arguments}
        given = set(names)
        stored = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        names |= dict.fromkeys(stored)
        self._locals.append(names)
        for part in ast.walk(node):
            if isinstance(part, ast.Assign) and isinstance(part.value, ast.Call):
                for name in _assigned(part):
                    if name not in given and stored.count(name) == 1 and isinstance(part.targets[0], ast.Name):
                        names[name] = self._instance(part.value.func)
        self.generic_visit(node)
        self._locals.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        symbol = Symbol(self._module, node)
        if any(self._is_theirs(base) for base in node.bases):
            self._check_overrides(node)
        self._classes.append(symbol)
        self.generic_visit(node)
        self._classes.pop()

    # Uses.

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            found = self._library.module_symbol(alias.name) if self._is_checked(alias.name) else UNKNOWN
            if found is None:
                self._report(node, f"there is no module {alias.name}")
            self._imports[name] = found if found is not None and alias.asname else UNKNOWN

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = self._library.absolute(self._module, node)
        for alias in node.names:
            known = self._library.knows(source)
            found = self._library.resolve(source, alias.name) if known else UNKNOWN
            if found is None and self._is_checked(source):
                self._report(node, f"{source} has no {alias.name}")
            self._imports[alias.asname or alias.name] = found or UNKNOWN

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self._evaluate(node.value)
        if owner is None or owner.node is None or self._is_dynamic(owner):
            return
        if self._member(owner, node.value, node.attr) is None:
            self._report(node, f"{_name(owner)} has no {node.attr}")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        target = self._evaluate(node.func)
        if target is None or target.node is None or not self._is_checked(target.module):
            return
        if reason := refusal(self._library, target, Call.of(node)):
            self._report(node, f"{_name(target)} {reason}")

    # What an expression means.

    def _evaluate(self, node: ast.AST) -> Symbol | None:
        if _is_self(node) and self._classes and self._has_their_members():
            return Symbol(self._module, self._class_node, is_instance=True)
        if _is_super(node) and self._classes:
            return Symbol(self._module, self._class_node, is_instance=True)
        if isinstance(node, ast.Name):
            for names in reversed(self._locals):
                if node.id in names:
                    return names[node.id]
            return self._imports.get(node.id) or self._own(node.id)
        if isinstance(node, ast.Attribute):
            if _is_self(node.value) and node.attr in self._rules.types:
                found = lookup(self._library, self._rules.types[node.attr])
                assert found is not None, f"{self._rules.types[node.attr]} is gone"
                return Symbol(found.module, found.node, is_instance=True)
            owner = self._evaluate(node.value)
            return None if owner is None else self._member(owner, node.value, node.attr)
        return None

    def _instance(self, expression: ast.AST | None) -> Symbol | None:
        """A value of the class that an annotation names or a call makes."""
        found = self._evaluate(expression) if expression is not None else None
        if found is None or not isinstance(found.node, ast.ClassDef):
            return None
        return Symbol(found.module, found.node, is_instance=True)

    def _own(self, name: str) -> Symbol | None:
        """A class or function of the file itself, whose bases may be theirs."""
        found = self._library.resolve(self._module, name)
        return found if found is not None and isinstance(found.node, ast.ClassDef | Function) else None

    def _member(self, owner: Symbol, expression: ast.AST, name: str) -> Symbol | None:
        if not isinstance(owner.node, ast.ClassDef):
            return self._library.attribute(owner, name)
        members = self._library.members(owner, self._mixed(owner))
        if _is_super(expression):
            members = Members(open=members.open)
            for base in self._bases(owner):
                part = self._library.members(base, self._mixed(owner))
                members.found = part.found | members.found
                members.open |= part.open
        found = members.found.get(name)
        return found if found is not None else UNKNOWN if members.open or name.startswith("__") else None

    def _bases(self, owner: Symbol) -> list[Symbol]:
        assert isinstance(owner.node, ast.ClassDef)
        found = [self._library.evaluate(owner.module, base) for base in owner.node.bases]
        return [base for base in found if base is not None and isinstance(base.node, ast.ClassDef)]

    def _mixed(self, owner: Symbol) -> list[Symbol]:
        assert isinstance(owner.node, ast.ClassDef)
        target = self._rules.mixed_into.get(f"{owner.module}:{owner.node.name}")
        found = lookup(self._library, target) if target else None
        return [found] if found is not None else []

    def _has_their_members(self) -> bool:
        return any(self._is_theirs(base) for base in self._class_node.bases) or bool(self._mixed(self._classes[-1]))

    @property
    def _class_node(self) -> ast.ClassDef:
        node = self._classes[-1].node
        assert isinstance(node, ast.ClassDef)
        return node

    def _is_checked(self, module: str) -> bool:
        return module.split(".")[0] in self._rules.packages

    def _is_theirs(self, base: ast.AST) -> bool:
        """Does a class with this base inherit from a checked package?"""
        found = self._evaluate(base)
        if found is None or not isinstance(found.node, ast.ClassDef):
            return False
        return self._is_checked(found.module) or any(self._is_checked(deeper.module) for deeper in self._bases(found))

    def _is_dynamic(self, owner: Symbol) -> bool:
        return isinstance(owner.node, ast.ClassDef) and f"{owner.module}:{owner.node.name}" in self._rules.dynamic

    def _check_overrides(self, node: ast.ClassDef) -> None:
        inherited = Members()
        for base in self._bases(Symbol(self._module, node)):
            inherited.found = self._library.members(base).found | inherited.found
        own = {item.name: item for item in node.body if isinstance(item, Function)}
        for name, item in own.items():
            theirs = inherited.found.get(name)
            if name.startswith("__"):
                continue
            if theirs is None and name not in self._rules.called:
                self._report(item, f"{node.name}.{name} overrides nothing, and nobody calls it")
            if theirs is None or not isinstance(theirs.node, Function):
                continue
            if reason := override_conflict(theirs.node, item):
                self._report(item, f"{theirs.module}'s {name} is overridden by one that {reason}")
        abstract = {name for name, symbol in inherited.found.items() if _is_abstract(symbol.node)}
        if missing := sorted(abstract - {name for name, _ in _own_members(node)}):
            self._report(node, f"{node.name} lacks {', '.join(missing)}")

    def _report(self, node: ast.AST, text: str) -> None:
        self.found.append(f"{self._module}:{getattr(node, 'lineno', 0)}: {text}")


def _is_abstract(node: ast.AST | None) -> bool:
    return isinstance(node, Function) and any("abstractmethod" in ast.unparse(d) for d in node.decorator_list)


def _name(symbol: Symbol) -> str:
    name = getattr(symbol.node, "name", "")
    return f"{symbol.module}.{name}" if name else symbol.module


def dictionary_keys(library: Library, module: str, variable: str) -> set[str]:
    """Text keys of every dictionary that a module assigns to ``variable``, or adds to it."""
    parsed = library.parsed(module)
    assert parsed is not None, module
    keys: set[str] = set()
    for node in ast.walk(parsed[0]):
        value: ast.AST | None = None
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and variable in _assigned(node):
            value = node.value
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                keys.add(str(target.slice.value))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
            owner = node.func.value
            value = node.args[0] if isinstance(owner, ast.Name) and owner.id == variable and node.args else None
        if isinstance(value, ast.Dict):
            keys |= {key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return keys
