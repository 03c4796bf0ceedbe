"""Holds the script of a machine test to what NixOS's driver takes: Python, and no name that is not there or not used."""

import ast
import builtins
import sys

# What a machine can be told, each with the keywords that it takes.
TOLD = {
    "fail": {"timeout"},
    "shutdown": set(),
    "start": {"allow_reboot"},
    "succeed": {"timeout"},
    "wait_for_unit": {"timeout", "user"},
    "wait_until_succeeds": {"timeout"},
}

nodes = list(ast.walk(ast.parse(sys.argv[1])))
there = {"host", "subtest", *dir(builtins)}
imported, used, wrong = set(), set(), []
for node in nodes:
    match node:
        case ast.alias():
            imported.add(node.asname or node.name)
        case ast.arg():
            there.add(node.arg)
        case ast.FunctionDef():
            there.add(node.name)
        case ast.Name(ctx=ast.Load()):
            used.add(node.id)
        case ast.Name():
            there.add(node.id)
        case ast.Attribute(value=ast.Name(id="host")) if node.attr not in TOLD:
            wrong.append(f"a machine has no `{node.attr}`")
        case ast.Call(func=ast.Attribute(value=ast.Name(id="host"), attr=told)):
            unknown = {keyword.arg for keyword in node.keywords} - TOLD.get(told, set())
            wrong += [f"`{told}` takes no `{keyword}`" for keyword in unknown]
wrong += [f"`{name}` is not there" for name in used - there - imported]
wrong += [f"`{name}` is not used" for name in imported - used]
if wrong:
    sys.exit("\n".join(sorted(wrong)))
