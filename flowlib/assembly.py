"""How a Redis script is put together: its `.lua` file behind the libraries of its `--#include` line, as far as it uses them.

Lua makes every function of a script anew at each call, so what a script does not use is left out: that is a tenth of
the time of a short script. Knows nothing of what the scripts do, nor of Redis.
"""

from __future__ import annotations

import re
from importlib import resources

_STATEMENT = re.compile(r"^(?=local |\w+ = function)", re.MULTILINE)  # at the top level of a library
_DEFINED = re.compile(r"(?:local function (\w+)|local ([\w, ]+)|(\w+) = function)")
_COMMENT = re.compile(r"--.*")
_WORD = re.compile(r"[A-Za-z_]\w*")


def assemble(name: str) -> bytes:
    folder = resources.files("flowlib") / "lua"
    shebang, script = (folder / f"{name}.lua").read_text().split("\n", 1)
    included = re.match(r"--#include (.*)\n", script)
    libraries = [(folder / "lib" / f"{lib}.lua").read_text() for lib in (included[1].split() if included else [])]
    statements = [statement for library in libraries for statement in _STATEMENT.split(library)[1:]]
    return "\n".join([shebang, *_used(statements, script), script]).encode()


def _used(statements: list[str], script: str) -> list[str]:
    """Those that define what the script names, or what they name themselves; in their order."""
    code = [_COMMENT.sub("", statement).strip() for statement in statements]
    defining: dict[str, list[int]] = {}
    for number, statement in enumerate(code):
        for name in _names(statement):
            defining.setdefault(name, []).append(number)
    used, texts = set[int](), [_COMMENT.sub("", script)]
    while texts:
        found = {number for word in set(_WORD.findall(texts.pop())) for number in defining.get(word, ())} - used
        used |= found
        texts += [code[number] for number in found]
    return [code[number] for number in sorted(used)]


def _names(statement: str) -> list[str]:
    match = _DEFINED.match(statement)
    assert match is not None, f"not a definition: {statement!r}"
    return _WORD.findall(next(filter(None, match.groups())))
