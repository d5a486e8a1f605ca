"""Stored values to the types of an annotation: the half of the codec that knows typing, and nothing of bytes.

`rebuild(value, annotation)` compiles an annotation once to a function and keeps it. It is strict, for it guards the
door to events that others send (I10): a missing or unknown field, a str for an int, a bool for an int are refused with
their path. What JSON cannot say is taken in its usual spelling: ISO strings for dates and times, strings for Decimal
and UUID, lists for tuples and sets; and an int where a float is asked for.

Of a union, the member whose fields are exactly those of the value is tried first, then those that are stored as the
value's own type, then the others; among equals, in the order in which they are written.
"""

from __future__ import annotations

import collections
import collections.abc as abc
import dataclasses
import inspect
import types
import typing
from enum import Enum
from functools import partial
from itertools import repeat
from typing import Annotated, Any, ClassVar, Final, Literal, NewType, NotRequired, Required, Union, get_args, get_origin

from .errors import PayloadError
from .hints import field_hints, substitute
from .scalar import SCALARS, UNTOUCHED, Convert, Misfit, Shape, enum, expected, literal, name_of, segment, subclass

__all__ = ["converter", "fields_of", "is_model", "is_struct", "rebuild"]

_QUALIFIERS = (Annotated, Required, NotRequired, Final, ClassVar)


def rebuild(value: Any, annotation: Any, where: str = "value") -> Any:
    """`value` as `annotation` wants it; raises `PayloadError` with the path below `where`."""
    if annotation is Any:
        return value
    try:
        return _shape(annotation).convert(value)
    except Misfit as misfit:
        raise PayloadError(f"{where}{misfit.path}: {misfit.message}") from misfit.__cause__
    except RecursionError:
        raise PayloadError(f"{where}: is nested too deeply to be rebuilt as {name_of(annotation)}") from None


def converter(annotation: Any) -> Convert | None:
    """What `rebuild` does to values, None when it would return them as they are; raises Misfit, and does when called."""
    shape = _shape(annotation)
    return None if shape is UNTOUCHED else shape.convert


def fields_of(annotation: Any) -> frozenset[str] | None:
    """By what names the fields of such a value are stored; None when its type does not say."""
    try:
        shape = _shape(annotation)
    except Misfit:
        return None
    return None if tuple in shape.kinds else shape.fields


def is_model(kind: type) -> bool:
    """A pydantic model, known by what it can do, so that pydantic need not be there."""
    return hasattr(kind, "model_dump") and hasattr(kind, "model_validate")


def is_struct(kind: type) -> bool:
    """A msgspec Struct."""
    return hasattr(kind, "__struct_fields__")


# -- annotations to shapes ---------------------------------------------------------------------------------------------

# By identity, since Union[A, B] == Union[B, A] while their order matters. The annotation is kept: its id stays its own.
_shapes: dict[int, tuple[Any, Shape]] = {}
_MOST_SHAPES = 4096


def _shape(annotation: Any) -> Shape:
    known = _shapes.get(id(annotation))
    if known is not None:
        return known[1]
    shape = _compile(annotation)
    if len(_shapes) >= _MOST_SHAPES:
        _shapes.clear()
    _shapes[id(annotation)] = annotation, shape
    return shape


def _compile(hint: Any) -> Shape:
    origin, args = get_origin(hint), get_args(hint)
    if origin in _QUALIFIERS or getattr(origin, "_name", None) == "ReadOnly":
        return _shape(args[0])
    if isinstance(hint, NewType):
        return _shape(hint.__supertype__)
    if hasattr(origin or hint, "__type_params__") and hasattr(origin or hint, "__value__"):
        return _alias(origin or hint, args)
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is Literal:
        return literal(args)
    if isinstance(hint, (str, typing.ForwardRef)):
        raise Misfit(f"the annotation {hint!r} cannot be resolved: import the name where it is used")
    kind = type(None) if hint is None else origin or hint
    if kind in (object, Any) or not isinstance(kind, type):  # Any has become a class in Python 3.11
        return UNTOUCHED  # Any, a TypeVar, a special form: nothing to rebuild
    return _of_class(kind, args, hint)


def _of_class(kind: type, args: tuple[Any, ...], hint: Any) -> Shape:
    if kind in SCALARS:
        return SCALARS[kind]
    if issubclass(kind, Enum):
        return enum(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, args)
    if is_model(kind):
        return _model(kind)
    if is_struct(kind):
        return _struct(kind, hint)
    if hasattr(kind, "__required_keys__"):
        return _typed_dict(kind, args)
    if issubclass(kind, tuple):
        return _named_tuple(kind, args) if hasattr(kind, "_fields") else _tuple(kind, args, hint)
    for base, accepted in _COLLECTIONS.items():
        if kind is base or (base in (list, set, frozenset) and issubclass(kind, base)):
            return _collection(kind, accepted, args)
    if kind in (abc.Mapping, abc.MutableMapping) or issubclass(kind, dict):
        return _mapping(kind, args)
    return subclass(kind)


def _alias(alias: Any, args: tuple[Any, ...]) -> Shape:
    """`type Name = ...`, which may contain itself, so it is opened when it is first needed."""
    if not args:
        return Shape(lambda value: _shape(alias.__value__).convert(value))
    return _shape(substitute(alias.__value__, dict(zip(alias.__type_params__, args, strict=False))))


def _union(args: tuple[Any, ...]) -> Shape:
    members = [_shape(arg) for arg in args]

    def convert(value: Any) -> Any:
        ranked = sorted(members, key=partial(_strangeness, value))
        misfits = []
        for member in ranked:
            try:
                return member.convert(value)
            except Misfit as misfit:
                misfits.append(misfit)
        likely = [member for member in members if _strangeness(value, member) < _STRANGE]
        if misfits[0].path or len(likely) == 1:  # it is this member, but for something inside
            raise misfits[0]
        raise expected(" | ".join(map(name_of, args)), value)

    return Shape(convert, tuple({kind for member in members for kind in member.kinds}))


_STRANGE = 2


def _strangeness(value: Any, member: Shape) -> int:
    if member.fields is not None and type(value) is dict and value.keys() == member.fields:
        return 0
    return 1 if type(value) in member.kinds else _STRANGE


# -- collections -------------------------------------------------------------------------------------------------------

_COLLECTIONS: dict[type, tuple[type, ...]] = {
    list: (list,),
    set: (set, frozenset, list),
    frozenset: (frozenset, set, list),
    abc.MutableSequence: (list,),
    abc.Sequence: (list, tuple),
    abc.MutableSet: (set,),
    abc.Set: (set, frozenset),
    abc.Collection: (list, tuple, set, frozenset),
    abc.Iterable: (list, tuple, set, frozenset),
}


def _each(converts: abc.Iterable[Convert], items: abc.Iterable[Any]) -> list[Any]:
    done: list[Any] = []
    try:
        for convert, item in zip(converts, items, strict=False):
            done.append(convert(item))
    except Misfit as misfit:
        raise misfit.below(f"[{len(done)}]") from misfit.__cause__
    return done


def _collection(kind: type, accepted: tuple[type, ...], args: tuple[Any, ...]) -> Shape:
    """Concrete classes are built; of an abstract one, the value keeps the class that it had."""
    item = _shape(args[0]) if args else UNTOUCHED
    abstract = inspect.isabstract(kind)

    def convert(value: Any) -> Any:
        if type(value) not in accepted:
            raise expected(name_of(kind), value)
        make = type(value) if abstract else kind
        fit = item.all_fit(value)
        if fit and make is type(value):
            return value
        try:
            return make(value if fit else _each(repeat(item.convert), value))
        except TypeError as error:
            raise Misfit(f"cannot become a {name_of(kind)}: {error}") from error

    return Shape(convert, accepted if abstract else (accepted[0],))


def _tuple(kind: type, args: tuple[Any, ...], hint: Any) -> Shape:
    if len(args) == 2 and args[1] is Ellipsis:
        return _collection(kind, (tuple, list), args[:1])
    if not args and not isinstance(hint, types.GenericAlias):  # tuple, but not tuple[()]
        return _collection(kind, (tuple, list), ())
    members = [_shape(arg).convert for arg in args]

    def convert(value: Any) -> Any:
        if type(value) not in (tuple, list):
            raise expected("tuple", value)
        if len(value) != len(members):
            raise Misfit(f"expected a tuple of {len(members)} items, got {len(value)}")
        return tuple(_each(members, value))

    return Shape(convert, (tuple,))


def _mapping(kind: type, args: tuple[Any, ...]) -> Shape:
    args = (*args, int) if issubclass(kind, collections.Counter) and args else args
    key, item = (_shape(arg) for arg in args) if len(args) == 2 else (UNTOUCHED, UNTOUCHED)
    make: Convert | None = None
    if issubclass(kind, collections.defaultdict):
        make = partial(kind, None)  # the factory is code, and was not stored
    elif not inspect.isabstract(kind) and kind is not dict:
        make = kind

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            raise expected(name_of(kind), value)
        if make is None and key.all_fit(value) and (item is UNTOUCHED or item.all_fit(value.values())):
            return value
        made = {}
        for name, content in value.items():
            try:
                made[key.convert(name)] = item.convert(content)
            except Misfit as misfit:
                raise misfit.below(segment(name)) from misfit.__cause__
        return made if make is None else make(made)

    return Shape(convert, (dict,))


# -- records -----------------------------------------------------------------------------------------------------------


class _Fields:
    """The named fields of a class. Its annotations are resolved when first needed, so a class may contain itself."""

    def __init__(
        self, kind: type, args: tuple[Any, ...], names: abc.Sequence[str], optional: abc.Collection[str]
    ) -> None:
        self.kind = kind
        self.args = args
        self.names = names
        self.optional = set(optional)
        self._converts: dict[str, Convert] | None = None

    @property
    def converts(self) -> dict[str, Convert]:
        if self._converts is None:
            try:
                hints = field_hints(self.kind, self.args)
            except Exception as error:
                raise Misfit(f"the fields of {self.kind} have types that cannot be resolved: {error}") from error
            for name, hint in hints.items():  # with string annotations, a TypedDict itself does not know this
                if get_origin(hint) is NotRequired:
                    self.optional.add(name)
                elif get_origin(hint) is Required:
                    self.optional.discard(name)
            self._converts = {name: _shape(hints.get(name, Any)).convert for name in self.names}
        return self._converts

    def read(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise expected(self.kind.__name__, value)
        done: dict[str, Any] = {}
        for name, convert in self.converts.items():
            if name in value:
                try:
                    done[name] = convert(value[name])
                except Misfit as misfit:
                    raise misfit.below(f".{name}") from misfit.__cause__
            elif name not in self.optional:
                raise Misfit(f"missing, and {self.kind.__name__} needs it", f".{name}")
        if len(done) < len(value):
            unknown = next(key for key in value if key not in self.converts)
            raise Misfit(f"{self.kind.__name__} has no such field", segment(unknown))
        return done


def _dataclass(kind: type, args: tuple[Any, ...]) -> Shape:
    names = [field.name for field in dataclasses.fields(kind)]
    late = {field.name for field in dataclasses.fields(kind) if not field.init}
    defaults = _defaults(kind)
    fields = _Fields(kind, args, names, defaults.keys() | late)
    plain_init = set(inspect.signature(kind).parameters) == set(names) - late

    def construct(values: dict[str, Any]) -> Any:
        if plain_init:
            made = kind(**{name: value for name, value in values.items() if name not in late})
            values = {name: value for name, value in values.items() if name in late}
        else:  # an InitVar or an own __init__: its arguments were not stored, but what it made of them was
            made = object.__new__(kind)
            values = {name: make() for name, make in defaults.items()} | values
        for name, value in values.items():
            object.__setattr__(made, name, value)
        return made

    def convert(value: Any) -> Any:
        values = fields.read(value)
        try:
            return construct(values) if late or not plain_init else kind(**values)
        except Exception as error:
            raise Misfit(f"{kind.__name__} refused it: {error}") from error

    return Shape(convert, (dict,), frozenset(names))


def _defaults(kind: Any) -> dict[str, abc.Callable[[], Any]]:
    made: dict[str, abc.Callable[[], Any]] = {}
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            made[field.name] = partial(getattr, field, "default")
        elif field.default_factory is not dataclasses.MISSING:
            made[field.name] = field.default_factory
    return made


def _named_tuple(kind: Any, args: tuple[Any, ...]) -> Shape:
    fields = _Fields(kind, args, kind._fields, kind._field_defaults)

    def convert(value: Any) -> Any:
        if type(value) not in (tuple, list):
            raise expected(kind.__name__, value)
        if len(value) > len(kind._fields):
            raise Misfit(f"expected {kind.__name__} of {len(kind._fields)} items, got {len(value)}")
        return kind(**fields.read(dict(zip(kind._fields, value, strict=False))))

    return Shape(convert, (tuple,))


def _typed_dict(kind: Any, args: tuple[Any, ...]) -> Shape:
    names = frozenset(kind.__required_keys__ | kind.__optional_keys__)
    fields = _Fields(kind, args, sorted(names), kind.__optional_keys__)
    return Shape(fields.read, (dict,), names)


def _model(kind: Any) -> Shape:
    """Pydantic validates by its own rules; it is given the names of fields, and takes their aliases as well."""
    by_name = "by_name" in inspect.signature(kind.model_validate).parameters
    options = {"by_alias": True, "by_name": True} if by_name else {}

    def convert(value: Any) -> Any:
        try:
            return kind.model_validate(value, **options)
        except Exception as error:
            found: list[dict[str, Any]] = getattr(error, "errors", list)()
            if not found:
                raise Misfit(f"{kind.__name__} refused it: {error}") from error
            raise Misfit(found[0]["msg"], "".join(map(segment, found[0]["loc"]))) from error

    return Shape(convert, (dict,), frozenset(kind.model_fields))


def _struct(kind: Any, hint: Any) -> Shape:
    import msgspec  # optional: whoever has a Struct has it

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$")
            raise Misfit(message, path.rstrip("`")) from error

    return Shape(convert, (dict,), frozenset(kind.__struct_encode_fields__))
