"""What annotations say, resolved: the return type of a callable, the types of a class's fields.

Owns the ways around `typing` (string annotations, decorators, generics) and nothing else: it never sees a value.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, get_args, get_origin
from weakref import WeakKeyDictionary

__all__ = ["annotation_of", "field_hints", "substitute"]

_returns: WeakKeyDictionary[Callable[..., Any], Any] = WeakKeyDictionary()


def annotation_of(fn: Callable[..., Any]) -> Any:
    """What `fn` returns, or `Any` when it does not say or says it by a name that cannot be resolved.

    Looks through functools.partial, methods, decorators made with functools.wraps and objects with `__call__`. Of an
    `async def`, and of a function that returns an awaitable, it is what awaiting gives. A class returns itself.
    """
    while True:
        if isinstance(fn, partial):
            fn = fn.func
        elif hasattr(fn, "__wrapped__"):
            fn = inspect.unwrap(fn)
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif isinstance(fn, type):
            return fn
        elif not isinstance(fn, types.FunctionType) and isinstance(type(fn).__call__, types.FunctionType):
            fn = type(fn).__call__
        else:
            break
    if not isinstance(fn, types.FunctionType):
        return Any
    try:
        return _returns[fn]
    except KeyError:
        return _returns.setdefault(fn, _return_hint(fn))


def _return_hint(fn: types.FunctionType) -> Any:
    """Resolves the return annotation alone, so that what the parameters are called by may be out of reach."""
    try:
        holder = types.SimpleNamespace(__annotations__={"return": fn.__annotations__["return"]})
        hint = typing.get_type_hints(holder, fn.__globals__, _local_names(fn), include_extras=True)["return"]
    except Exception:
        return Any
    if get_origin(hint) in (Awaitable, Coroutine):
        return get_args(hint)[-1]
    return hint


def _local_names(fn: types.FunctionType) -> dict[str, Any]:
    """Names that only `fn` can see: its type parameters, and what it uses of the function around it."""
    names = {parameter.__name__: parameter for parameter in getattr(fn, "__type_params__", ())}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # not bound yet
    return names


def field_hints(kind: type, args: tuple[Any, ...]) -> dict[str, Any]:
    """The types of a class's fields, with the type parameters of the class and of its bases filled in."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except NameError:  # a class inside a function that names itself
        hints = typing.get_type_hints(kind, localns={kind.__name__: kind}, include_extras=True)
    arguments = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
    for base in (base for parent in kind.__mro__ for base in parent.__dict__.get("__orig_bases__", ())):
        arguments.update(zip(getattr(get_origin(base), "__parameters__", ()), get_args(base), strict=False))
    return {name: substitute(hint, arguments) for name, hint in hints.items()}


def substitute(hint: Any, arguments: dict[Any, Any]) -> Any:
    """`hint` with the type parameters of a generic class replaced by what it was subscripted with."""
    if isinstance(hint, typing.TypeVar):
        found = arguments.get(hint, hint)
        return found if found is hint else substitute(found, arguments)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or isinstance(hint, type):
        return hint
    return hint[tuple(substitute(parameter, arguments) for parameter in parameters)]
