"""Reading alpha configurations: substitution, YAML, names and types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.config.alpha.read import read_alpha
from authproxy.config.alpha.substitute import substitute, unset
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
        ("$OTHER", "x$NAME"),  # what is filled in is not looked at again
        ("/$1/$2/$12x ${1} ${2}", "/$1/$2/$12x ${1} ${2}"),
        ("# $NAME\n$.x {a} }", "# value\n$.x {a} }"),
        ("${} ${ }", "${} ${ }"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert substitute(text, ENV) == expected


@pytest.mark.parametrize("text", ["${NAME", "${NAME:-x\n}", "${", "${NAME?x}"])
def test_a_broken_reference_is_told_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: a reference"):
        substitute("\n" + text, ENV)


def test_variables_that_are_not_set_are_told() -> None:
    text = (
        "a: $NAME ${NONE}\n  # $NONE\nb: pa$word $$x $1\n"
        "c: ${EMPTY} ${NONE:-} ${NONE+x} ${"
    )
    assert list(unset(text, ENV)) == [("${NONE}", 1), ("$word", 3)]


@given(st.text(alphabet="$ {}:-+=aB1_\n"))
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    try:
        found = substitute(text, {"a": "1"})
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
def test_scalars_are_those_of_the_original(text: str, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is there twice"),
        ("x:\n  a: 1\n  a: 1", "line 3: the key 'a' is there twice"),
        ("? [a]\n: 1", "line 1: the key is no text"),
        ("a: 'x", "line 1: found unexpected end of stream"),
        ("a: !!python/none x", "line 1: could not determine a constructor"),
        ("a: *secret", "line 1: found undefined alias …"),
        ("a: \x00", "it has characters that YAML does not allow"),
        ("[" * 4000, "it is nested too deeply"),
    ],
)
def test_malformed_yaml_is_told_with_its_line(text: str, problem: str) -> None:
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
def test_what_is_written_reads_the_same(document: Any) -> None:
    assert read_yaml(write_yaml(document)) == document


def read(text: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    file = folder / "alpha.yaml"
    file.write_text(text)
    tree, problems = read_alpha(str(file), {})
    return tree, [line.replace(str(file), "FILE") for line in problems.found]


def test_names_are_the_same_in_either_case_and_null_is_absent(tmp_path: Path) -> None:
    text = "PROVIDERS: [{CLIENTid: a, name: ~}]\nserver: ~"
    assert read(text, tmp_path) == ({"providers": [{"clientID": "a"}]}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("upstream: []", "upstream (FILE): unknown key; did you mean upstreamConfig?"),
        ("5: x", "5 (FILE): unknown key"),
        ("providers: [{clientid: a, clientID: b}]",
         "providers[0].clientID (FILE): given twice; keys are the same in upper and "
         "lower case"),
        ("providers: [{}, {oidcConfig: {issuerUrl: 5}}]",
         "providers[1].oidcConfig.issuerURL (FILE): got a number, expected a text"),
        ("providers: [{oidcConfig: x}]",
         "providers[0].oidcConfig (FILE): got a text, expected a mapping"),
        ("providers: x", "providers (FILE): got a text, expected a list"),
        ("providers: [x]", "providers[0] (FILE): got a text, expected a mapping"),
        ("providers: [{allowedGroups: x}]",
         "providers[0].allowedGroups (FILE): got a text, expected a list of texts"),
        ("providers: [{allowedGroups: [1]}]",
         "providers[0].allowedGroups (FILE): got a list, expected a list of texts"),
        ("providers: [{useSystemTrustStore: 'true'}]",
         "providers[0].useSystemTrustStore (FILE): got a text, expected true or false"),
        ("upstreamConfig: {upstreams: [{staticCode: true}]}",
         "upstreamConfig.upstreams[0].staticCode (FILE): got a truth value, expected "
         "a whole number"),
        ("upstreamConfig: {upstreams: [{timeout: 1d}]}",
         "upstreamConfig.upstreams[0].timeout (FILE): got a text, expected a duration "
         "such as 1h30m or 90s"),
        ("upstreamConfig: {upstreams: [{timeout: .nan}]}",
         "upstreamConfig.upstreams[0].timeout (FILE): got a number, expected a "
         "duration such as 1h30m or 90s"),
        ("server: {tls: {key: {value: 5}}}",
         "server.tls.key.value (FILE): got a number, expected a text, or a list of "
         "byte values"),
        ("server: {tls: {key: {value: [256]}}}",
         "server.tls.key.value (FILE): got a list, expected a text, or a list of "
         "byte values"),
        ("providers: [{name: 2001-01-01, id: !!binary aGk=}]",
         "providers[0].id (FILE): got something else, expected a text"),
        ("[a]", "--alpha-config: FILE is no mapping of keys to values"),
        ("a: [", "--alpha-config: FILE can't be read: line 1: expected the node "
         "content, but found …"),
        ("${A", "--alpha-config: FILE can't be read: line 1: a reference ${…} that "
         "can't be read; $$ is a dollar sign"),
    ],
)  # fmt: skip
def test_names_and_types_are_judged(text: str, problem: str, tmp_path: Path) -> None:
    assert read(text, tmp_path)[1] == [problem]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("1.5", 1.5), ("2.0", 2.0), ("30000000000", 30.0), ("0", 0.0),
     ("-1s", -1.0)],
)  # fmt: skip
def test_durations_keep_their_meaning(
    text: str, seconds: float, tmp_path: Path
) -> None:
    document = f"upstreamConfig: {{upstreams: [{{timeout: {text}}}]}}"
    tree, found = read(document, tmp_path)
    assert found == []
    assert tree["upstreamConfig"]["upstreams"][0]["timeout"] == seconds


def test_secrets_are_texts_or_byte_values(tmp_path: Path) -> None:
    tree, found = read("server: {tls: {key: {value: [112, 0]}, cert: {value: =}}}",
                       tmp_path)  # fmt: skip
    assert found == []
    assert tree["server"]["tls"] == {"key": {"value": b"p\0"}, "cert": {"value": b"="}}


@pytest.mark.parametrize("content", [None, b"\xff", b""])
def test_files_that_hold_nothing(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "alpha.yaml"
    if content is not None:
        file.write_bytes(content)
    tree, problems = read_alpha(str(file), {})
    expected = {
        None: [f"--alpha-config: can't read {file}: No such file or directory"],
        b"\xff": [f"--alpha-config: {file} is not UTF-8 text"],
        b"": [],
    }
    assert (tree, problems.found) == ({}, expected[content])
