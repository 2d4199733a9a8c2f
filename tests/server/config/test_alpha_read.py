"""Alpha configuration files: substitution, YAML, names and types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.config.alpha.read import read_alpha_file
from authproxy.config.alpha.substitute import substitute_variables, unset_references
from authproxy.config.read.yaml_text import read_yaml, write_yaml

ENV = {"NAME": "value", "EMPTY": "", "OTHER": "x$NAME"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$NAME ${NAME} $NAMES ${NAMES}.", "value value  ."),
        ("$$NAME $$$NAME 5$ $", "$NAME $value 5$ $"),
        ("${NAME:-d} ${EMPTY:-d} ${NONE:-d}", "value d d"),
        ("${NAME:=d} ${EMPTY:=d} ${NONE:=d}", "value d d"),
        ("${NAME-d} ${EMPTY-d} ${NONE-d} ${NONE=d}", "value  d d"),
        ("${NAME+a} ${EMPTY:+a} ${NONE+a}", "a a "),
        ("${NONE:-$NAME} ${NONE-$NONE} ${NONE:-a b:c}", "value  a b:c"),
        ("$OTHER", "x$NAME"),  # values are not substituted again
        ("/$1/$2/$12x ${1} ${2}", "/$1/$2/$12x ${1} ${2}"),
        ("# $NAME\n$.x {a} }", "# value\n$.x {a} }"),
        ("${} ${ }", "${} ${ }"),
    ],
)
def test_substitute_variables_replaces_references(text: str, expected: str) -> None:
    assert substitute_variables(text, ENV) == expected


@pytest.mark.parametrize("text", ["${NAME", "${NAME:-x\n}", "${", "${NAME?x}"])
def test_substitute_variables_malformed_reference_names_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: malformed reference"):
        substitute_variables("\n" + text, ENV)


def test_unset_references_yields_references_with_lines() -> None:
    text = (
        "a: $NAME ${NONE}\n  # $NONE\nb: pa$word $$x $1\n"
        "c: ${EMPTY} ${NONE:-} ${NONE+x} ${"
    )
    assert list(unset_references(text, ENV)) == [("${NONE}", 1), ("$word", 3)]


@given(st.text(alphabet="$ {}:-+=aB1_\n"))
def test_substitute_variables_any_text_substituted_or_rejected(text: str) -> None:
    try:
        found = substitute_variables(text, {"a": "1"})
    except ValueError:
        return
    assert "$" in text or found == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("10", 10),
        ("0x1f", 31),
        ("0660", 432),
        ("0o17", 15),
        ("1_000", 1000),
        ("-5", -5),
        ("08", 8.0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1:30", "1:30"),
        ("0b1_", 1),
        ("99999999999999999999", "99999999999999999999"),
        ("2001-01-01", "2001-01-01"),
        ("'5'", "5"),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
        ("x: &a {p: 1, q: 2}\ny: {<<: *a, q: 3}", {"x": {"p": 1, "q": 2},
                                                  "y": {"p": 1, "q": 3}}),
    ],
)  # fmt: skip
def test_read_yaml_scalars_as_in_oauth2_proxy(text: str, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: duplicate key 'a'"),
        ("x:\n  a: 1\n  a: 1", "line 3: duplicate key 'a'"),
        ("? [a]\n: 1", "line 1: key is not a scalar"),
        ("a: 'x", "line 1: found unexpected end of stream"),
        ("a: !!python/none x", "line 1: could not determine a constructor"),
        ("a: *secret", "line 1: found undefined alias …"),
        ("a: \x00", "invalid characters for YAML"),
        ("[" * 4000, "nested too deeply"),
    ],
)
def test_read_yaml_malformed_document_names_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        read_yaml(text)
    assert "secret" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_write_yaml_round_trips(document: Any) -> None:
    assert read_yaml(write_yaml(document)) == document


def read(text: str, directory: Path) -> tuple[dict[str, Any], list[str]]:
    file = directory / "alpha.yaml"
    file.write_text(text)
    tree, problems = read_alpha_file(str(file), {})
    return tree, [line.replace(str(file), "FILE") for line in problems.problems]


def test_read_alpha_file_names_case_insensitive_and_null_absent(tmp_path: Path) -> None:
    text = "PROVIDERS: [{CLIENTid: a, name: ~}]\nserver: ~"
    assert read(text, tmp_path) == ({"providers": [{"clientID": "a"}]}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("upstream: []", "upstream (FILE): unknown key; did you mean upstreamConfig?"),
        ("5: x", "5 (FILE): unknown key"),
        ("providers: [{clientid: a, clientID: b}]",
         "providers[0].clientID (FILE): duplicate key; keys are case-insensitive"),
        ("providers: [{}, {oidcConfig: {issuerUrl: 5}}]",
         "providers[1].oidcConfig.issuerURL (FILE): got a number, expected a string"),
        ("providers: [{oidcConfig: x}]",
         "providers[0].oidcConfig (FILE): got a string, expected a mapping"),
        ("providers: x", "providers (FILE): got a string, expected a list"),
        ("providers: [x]", "providers[0] (FILE): got a string, expected a mapping"),
        ("providers: [{allowedGroups: x}]",
         "providers[0].allowedGroups (FILE): got a string, expected a list of strings"),
        ("providers: [{allowedGroups: [1]}]",
         "providers[0].allowedGroups (FILE): got a list, expected a list of strings"),
        ("providers: [{useSystemTrustStore: 'true'}]",
         "providers[0].useSystemTrustStore (FILE): got a string, expected true or false"),
        ("upstreamConfig: {upstreams: [{staticCode: true}]}",
         "upstreamConfig.upstreams[0].staticCode (FILE): got a boolean, expected "
         "an integer"),
        ("upstreamConfig: {upstreams: [{timeout: 1d}]}",
         "upstreamConfig.upstreams[0].timeout (FILE): got a string, expected a duration "
         "such as 1h30m or 90s"),
        ("upstreamConfig: {upstreams: [{timeout: .nan}]}",
         "upstreamConfig.upstreams[0].timeout (FILE): got a number, expected a "
         "duration such as 1h30m or 90s"),
        ("server: {tls: {key: {value: 5}}}",
         "server.tls.key.value (FILE): got a number, expected a string, or a list of "
         "byte values"),
        ("server: {tls: {key: {value: [256]}}}",
         "server.tls.key.value (FILE): got a list, expected a string, or a list of "
         "byte values"),
        ("providers: [{name: 2001-01-01, id: !!binary aGk=}]",
         "providers[0].id (FILE): got another type, expected a string"),
        ("[a]", "--alpha-config: FILE is not a mapping"),
        ("a: [", "--alpha-config: FILE is invalid: line 1: expected the node "
         "content, but found …"),
        ("${A", "--alpha-config: FILE is invalid: line 1: malformed reference ${…}; "
         "$$ is a dollar sign"),
    ],
)  # fmt: skip
def test_read_alpha_file_checks_names_and_types(
    text: str, problem: str, tmp_path: Path
) -> None:
    assert read(text, tmp_path)[1] == [problem]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("1.5", 1.5), ("2.0", 2.0), ("30000000000", 30.0), ("0", 0.0),
     ("-1s", -1.0)],
)  # fmt: skip
def test_read_alpha_file_converts_durations(
    text: str, seconds: float, tmp_path: Path
) -> None:
    document = f"upstreamConfig: {{upstreams: [{{timeout: {text}}}]}}"
    tree, found = read(document, tmp_path)
    assert found == []
    assert tree["upstreamConfig"]["upstreams"][0]["timeout"] == seconds


def test_read_alpha_file_secret_is_string_or_byte_values(tmp_path: Path) -> None:
    tree, found = read("server: {tls: {key: {value: [112, 0]}, cert: {value: =}}}",
                       tmp_path)  # fmt: skip
    assert found == []
    assert tree["server"]["tls"] == {"key": {"value": b"p\0"}, "cert": {"value": b"="}}


@pytest.mark.parametrize("content", [None, b"\xff", b""])
def test_read_alpha_file_missing_malformed_or_empty(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "alpha.yaml"
    if content is not None:
        file.write_bytes(content)
    tree, problems = read_alpha_file(str(file), {})
    expected = {
        None: [f"--alpha-config: can't read {file}: No such file or directory"],
        b"\xff": [f"--alpha-config: {file} is not UTF-8 text"],
        b"": [],
    }
    assert (tree, problems.problems) == ({}, expected[content])
