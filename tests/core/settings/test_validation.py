"""Settings that validate themselves: every field of every struct, by inspection."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from msgspec import Struct
from msgspec.structs import FieldInfo, fields, replace

from authproxy_core.errors import SettingsError
from authproxy_core.settings.providers import EntraIdSettings, ProviderSettings
from authproxy_core.settings.root import (
    CookieSettings,
    HeaderRule,
    Secret,
    SessionSettings,
    Settings,
    UpstreamSettings,
)
from authproxy_core.settings.rules import AccessRule, Condition
from authproxy_core.settings.validation import (
    MAX_DISPLAY_LENGTH,
    ValidatedStruct,
    compile_type,
)


def structs_in(annotation: Any) -> Iterator[type[Struct]]:
    """The struct types that *annotation* mentions, themselves and nested."""
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        yield annotation
        for field in fields(annotation):
            yield from structs_in(field.type)
    for argument in get_args(annotation):
        yield from structs_in(argument)


STRUCTS = sorted(set(structs_in(Settings)), key=lambda cls: cls.__name__)
FIELDS = [
    pytest.param(cls, field, id=f"{cls.__name__}.{field.name}")
    for cls in STRUCTS
    for field in fields(cls)
]


def wrong_values(annotation: Any) -> Iterator[Any]:
    """Values of each kind that *annotation* excludes."""
    yield object()
    yield [annotation]
    arguments = get_args(annotation)
    match get_origin(annotation):
        case None if annotation in (int, float):
            yield from (True, "1", None, math.nan)
        case None if annotation is bool:
            yield from (0, 1, "true", None)
        case None if annotation is str:
            yield from (b"x", 1, None)
        case None:
            yield from ("x", 1, {}, None)
        case origin if origin is Annotated:
            yield from wrong_values(arguments[0])
            bounds = arguments[1]
            yield bounds.ge - 1
            if bounds.le is not None:
                yield bounds.le + 1
        case origin if origin is Literal:
            yield from ("nonsense", 0, None)
        case origin if origin is tuple:
            yield from ("x", [], frozenset(), None)
            size = 1 if arguments[-1] is ... else len(arguments)
            yield tuple(object() for _ in range(size))
            if arguments[-1] is not ...:
                yield ()
        case origin if origin is frozenset:
            yield from (["x"], ("x",), frozenset({1}))
        case origin if origin is Mapping:
            yield from ((), {"x": "y"}, {1: Secret(b"y")})
        case origin if origin is Callable:
            yield from ("x", b"x")
        case _:  # a union
            yield from (1.5, ())


def minimal(cls: type[Struct]) -> Struct:
    """An instance with nothing but the required fields."""
    values = {
        field.name: () if get_origin(field.type) is tuple else "x"
        for field in fields(cls)
        if field.required
    }
    return cls(**values)


@pytest.mark.parametrize("cls", STRUCTS, ids=lambda cls: cls.__name__)
def test_settings_struct_validates_and_is_frozen(cls: type[Struct]) -> None:
    assert issubclass(cls, ValidatedStruct)
    assert cls.__struct_config__.frozen
    assert minimal(cls) == minimal(cls)


@pytest.mark.parametrize(("cls", "field"), FIELDS)
def test_settings_field_wrong_value_rejected(
    cls: type[Struct], field: FieldInfo
) -> None:
    instance = minimal(cls)
    for value in wrong_values(field.type):
        with pytest.raises(SettingsError) as caught:
            replace(instance, **{field.name: value})
        [problem] = caught.value.problems
        assert problem.startswith(f"{cls.__name__}.{field.name}: got "), problem
        assert ", expected " in problem


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: CookieSettings(samesite="off"),  # type: ignore[arg-type]
            "CookieSettings.samesite: got 'off', expected one of '', 'lax', 'strict', "
            "'none'",
        ),
        (
            lambda: SessionSettings(backend="redis"),  # type: ignore[arg-type]
            "SessionSettings.backend: got 'redis', expected one of 'cookie', 'store'",
        ),
        (
            lambda: Settings(auth_success_status=302),  # type: ignore[arg-type]
            "Settings.auth_success_status: got 302, expected one of 200, 202, 204",
        ),
        (
            lambda: Settings(auth_success_status=200.0),  # type: ignore[arg-type]
            "Settings.auth_success_status: got 200.0, expected one of 200, 202, 204",
        ),
        (
            lambda: Settings(forbidden_session="delete"),  # type: ignore[arg-type]
            "Settings.forbidden_session: got 'delete', expected one of 'keep', 'clear'",
        ),
        (
            lambda: Settings(clock_skew=-1),
            "Settings.clock_skew: got -1, expected finite number >= 0",
        ),
        (
            lambda: CookieSettings(csrf_slots=65),
            "CookieSettings.csrf_slots: got 65, expected int from 1 to 64",
        ),
        (
            lambda: UpstreamSettings(id="a", static_code=100),
            "UpstreamSettings.static_code: got 100, expected int from 200 to 599 or "
            "None",
        ),
        (
            lambda: UpstreamSettings(id="a", timeout=math.inf),
            "UpstreamSettings.timeout: got inf, expected finite number >= 0",
        ),
        (
            lambda: Settings(email_domains=["*"]),  # type: ignore[arg-type]
            "Settings.email_domains: got ['*'], expected tuple of str",
        ),
        (
            lambda: Condition(claims=(("team", "a"),)),  # type: ignore[arg-type]
            "Condition.claims: got (('team', 'a'),), expected tuple of (str, tuple of "
            "str)",
        ),
        (
            lambda: Settings(authenticated_emails=("a@b.example",)),  # type: ignore[arg-type]
            "Settings.authenticated_emails: got ('a@b.example',), expected frozenset of "
            "str or None",
        ),
        (
            lambda: HeaderRule("X-User", ("user",)),  # type: ignore[arg-type]
            "HeaderRule.values: got tuple (not shown), expected tuple of ClaimSource or "
            "Secret",
        ),
    ],
)
def test_settings_error_names_field_value_and_expectation(
    make: Callable[[], object], problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        make()
    assert caught.value.problems == (problem,)


def test_settings_error_lists_every_wrong_field() -> None:
    with pytest.raises(SettingsError) as caught:
        CookieSettings(expire=-1.0, secure=1, path=None)  # type: ignore[arg-type]
    names = [problem.partition(":")[0] for problem in caught.value.problems]
    assert sorted(names) == [
        "CookieSettings.expire",
        "CookieSettings.path",
        "CookieSettings.secure",
    ]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProviderSettings(id="a", client_secret="hunter2"),  # type: ignore[arg-type]
        lambda: CookieSettings(secrets=("hunter2",)),  # type: ignore[arg-type]
        lambda: CookieSettings(secrets="hunter2"),  # type: ignore[arg-type]
        lambda: Settings(cookie={"secrets": ["hunter2"]}),  # type: ignore[arg-type]
        lambda: Settings(signature_key=b"hunter2"),  # type: ignore[arg-type]
        lambda: EntraIdSettings(federated_token="hunter2"),  # type: ignore[arg-type]
        lambda: HeaderRule("X", ("hunter2",)),  # type: ignore[arg-type]
        lambda: Secret(["hunter2"]),  # type: ignore[arg-type]
    ],
)
def test_settings_error_hides_possible_secrets(make: Callable[[], object]) -> None:
    with pytest.raises(SettingsError) as caught:
        make()
    assert "hunter2" not in str(caught.value)
    assert "(not shown)" in str(caught.value)


def test_settings_error_cuts_long_values() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(clock_skew="x" * 1000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < MAX_DISPLAY_LENGTH + 80


def test_settings_replace_validates_again() -> None:
    with pytest.raises(SettingsError):
        replace(CookieSettings(), max_parts=0)


def test_settings_int_accepted_for_seconds() -> None:
    assert CookieSettings(expire=60).expire == 60


def test_settings_nested_struct_of_another_class_rejected() -> None:
    with pytest.raises(SettingsError):
        AccessRule(when=AccessRule())  # type: ignore[arg-type]


def test_compile_type_unsupported_annotation_raises() -> None:
    with pytest.raises(TypeError, match="not supported"):
        compile_type(dict[str, int])
