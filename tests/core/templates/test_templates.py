"""Template language: output and errors equal those of Go's html/template."""

from __future__ import annotations

import contextlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core.templates import Html, TemplateError, compile_templates

# Output of Go 1.26's html/template for each template and each set of values, null for
# an error; the sets of values are the same for all templates.
DATA = json.loads(
    (Path(__file__).parents[2] / "data" / "go_templates.json").read_text()
)


def values_of(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: Html(value) if key == "H" else value for key, value in raw.items()}


def render(text: str, values: dict[str, Any]) -> str:
    return compile_templates({"t": text}).render("t", values).decode()


@pytest.mark.parametrize("template", DATA["templates"], ids=str)
def test_render_equals_go(template: str) -> None:
    for raw, expected in zip(DATA["values"], DATA["templates"][template], strict=True):
        if expected is None:
            with pytest.raises(TemplateError):
                render(template, values_of(raw))
        else:
            assert render(template, values_of(raw)) == expected


def test_render_page_equals_go() -> None:
    text = (Path(__file__).parents[2] / "e2e" / "reference_sign_in.html").read_text()
    page = compile_templates({"sign_in.html": text}).render(
        "sign_in.html", {"ProxyPrefix": "/oauth2"}
    )
    assert b'window.location = "\\/oauth2/start?rd=" + encodeURI(' in page


def test_errors_have_file_and_line() -> None:
    with pytest.raises(TemplateError, match=r"^page:2: "):
        compile_templates({"page": "a\n{{nosuch .X}}"})


def test_compile_unknown_field_rejected() -> None:
    for text in ("{{.Wrong}}", "{{$.Wrong}}", "{{if (len .Wrong)}}{{end}}"):
        with pytest.raises(TemplateError, match="no such field"):
            compile_templates({"t": text}, fields={"Right"})
    for text in ("{{.Right}}", "{{$.Right}}", "{{(print .Right).X}}", "{{$}}"):
        compile_templates({"t": text}, fields={"Right"})


def test_render_nested_calls_bounded() -> None:
    text = '{{define "r"}}<i>{{if .}}{{template "r" .}}{{end}}</i>{{end}}{{template "r" .X}}'
    with pytest.raises(TemplateError, match="too deep"):
        render(text, {"X": "x"})
    assert render(text, {"X": ""}) == "<i></i>"


@pytest.mark.parametrize(
    "text",
    [
        '{{template "none"}}',
        '{{define "r"}}<b title="{{template "r"}}{{end}}{{template "r"}}',
        "{{if .X}}<script>{{end}}{{.X}}",
        "{{range .L}}<script>{{end}}",
        '{{range .L}}{{if .}}<b title="{{end}}{{end}}',
        '<a href="{{if .X}}?{{end}}{{.X}}">',
        "{{.X | html | print}}",
        "<script>var a = /[{{.X}}/",
        "<b title=a'{{.X}}>",
        "<b {{.X}}'>",
        "<b x'y>",
        "{{/* open",
        "{{.X",
        '{{"open}}',
        "{{`open}}",
        "{{break}}",
        "{{$undefined}}",
        "{{define}}{{end}}",
        '{{define "a"}}',
        '{{define "a"}}x{{end}}{{define "a"}}y{{end}}',
        "{{else}}",
        "{{1.5}}",
        "{{'ab'}}",
        "{{.X .Y}}",
        "{{len}}",
        "{{len .X .Y}}",
        "{{99999999999999999999}}",
        "{{" + "(" * 200 + ".X" + ")" * 200 + "}}",
    ],
)
def test_compile_ambiguous_context_rejected(text: str) -> None:
    with pytest.raises(TemplateError):
        compile_templates({"t": text})


@pytest.mark.parametrize(
    "text",
    [
        "{{index .L 9}}",
        '{{index .L "x"}}',
        "{{index .N 1}}",
        "{{index .M .N}}",
        "{{len .N}}",
        "{{slice .X 2 1}}",
        "{{slice `abc` 2 1}}",
        "{{slice .N 1}}",
        "{{lt .X .N}}",
        "{{eq .X .N}}",
        "{{eq .L .L}}",
        "{{.X.Y}}",
        "{{range .X}}{{end}}",
        "{{ToUpper .N}}",
        "{{printf .N}}",
    ],
)
def test_render_unsupported_operation_raises(text: str) -> None:
    with pytest.raises(TemplateError):
        render(text, {"X": "x", "N": 3, "L": ["a"], "M": {"k": 1}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{range .N}}{{.}}{{end}}", "012"),
        ("{{range .Nothing}}{{else}}none{{end}}", "none"),
        ("{{$a := 1}}{{if true}}{{$a = 2}}{{end}}{{$a}}", "2"),
        ("{{with $x := .X}}{{$x}}{{end}}", "x"),
        ("{{and .X .Empty .N}}|{{or .Empty nil}}", "|"),
        ("{{.X | and .N}}|{{.Empty | or .Empty}}", "x|"),
        ("{{(index .L 0)}}{{(print .X).Y}}", None),
        ("{{ne .X `y`}}{{le .N 3}}{{gt .N 3}}{{not .Empty}}", "truetruefalsetrue"),
        ("{{println .X .N}}", "x 3\n"),
        ("{{ToLower `ABC`}}{{ToUpper `straße`}}", "abcSTRAßE"),
        ("{{printf `%5s|%-5s|%05d|%+d|%x|%X|%c|%t|%%` .X .X .N .N .N .X 65 true}}",
         "    x|x    |00003|&#43;3|3|78|A|true|%"),
        ("{{printf `%.1s %q %v %z %d` `ab` .X .L .N}}", None),
        ("{{len .M}}{{len `é`}}{{index `abc` 1}}{{slice .L 0 1}}", "1298[a]"),
        ("{{0x1F}}{{0o17}}{{017}}{{0b11}}{{1_000}}{{-5}}", "31151531000-5"),
        ("{{'\\n'}}{{'\\x41'}}{{'\\u00e9'}}{{'\\101'}}{{'\\''}}", "106523365" "39"),
        ('{{"a\\tb\\u00e9\\x41\\U0001F600"}}', "a\tbéA\U0001f600"),
        ("{{.M}}", "map[k:1]"),
        ("{{true}}{{false}}{{.Nothing}}", "truefalse"),
        ("a{{- 1 -}} b", "a1b"),
        ("{{block `b` .X}}<i>{{.}}</i>{{end}}", "<i>x</i>"),
        ("{{js .Q}}", "\\&#39;\\&#34;\\u003C\\u0026\\u003D\\u0001é"),
        ("<style>p{content:'{{.Q}}'; x: {{.X}}; /* {{.X}} */ y: url('{{.X}}')}</style>",
         None),
        ("<style>// {{.X}}\np{}</style>", "<style>\np{}</style>"),
        ("<p style='{{.X}}:1'>", "<p style='x:1'>"),
        ("<p title={{.H}} alt='{{.H}}'>", None),
        ("<img srcset='/a 1x, {{.X}}'>", "<img srcset='/a 1x, x'>"),
        ("<script>x++ / 2; y = z-- / {{.N}}; r = (/{{.X}}/g)</script>", None),
        ("<script>a = {{.N}} - {{.N}}, b = [{{.L}}], c = {{.Nothing}}</script>", None),
        ("<script>#! x {{.X}}\n--> {{.X}}\n<!-- {{.X}}\n</script>", None),
        ("<script>var s = '\\'{{.X}}</script>'</script>", None),
        ("<script>`${ {a: {{.N}}} } {{.X}}`</script>", None),
        ("<script type='text/x'>{{.X}}</script><textarea><{{.X}}</textarea>", None),
        ("<b data-src='{{.X}}' xmlns:x='{{.X}}' svg:href='{{.X}}' my-uri='{{.X}}'>",
         None),
        ("<b {{if .X}}checked{{end}} {{.X}}>", "<b checked x>"),
        ("<b title={{if .X}}{{.X}}{{end}}>", "<b title=x>"),
        ("<b title>{{.X}}", "<b title>x"),
        ("<meta content='0; {{.X}}; url={{.X}}; {{.X}}'>",
         "<meta content='0; x; url=x; x'>"),
        ("x <!-- <b> --> y", "x  y"),
        ("1 < 2", "1 &lt; 2"),
    ],
)  # fmt: skip
def test_language_features(text: str, expected: str | None) -> None:
    values = {
        "X": "x", "N": 3, "L": ["a", "b"], "M": {"k": 1}, "Empty": "", "Nothing": None,
        "Q": "'\"<&=\x01é", "H": Html("<b>h</b>"),
    }  # fmt: skip
    if expected is None:
        # Go's output is in the data above; here only other exceptions would fail.
        with contextlib.suppress(TemplateError):
            assert render(text, values)
    else:
        assert render(text, values) == expected


def test_compile_recursive_templates_require_stable_context() -> None:
    loop = '{{if .M}}{{template "b" .M}}{{end}}'
    b = '{{define "b"}}{{template "a" .}}{{.X}}{{end}}{{template "a" .}}'
    good = '{{define "a"}}<i>' + loop + "</i>{{end}}" + b
    values = {"X": "1", "M": {"X": "2", "M": None}}
    assert render(good, values) == "<i><i></i>2</i>"
    bad = '{{define "a"}}' + loop + "<script>{{end}}" + b + "</script>"
    with pytest.raises(TemplateError, match="calls itself in two contexts"):
        compile_templates({"t": bad})


def test_named_escaper_does_not_replace_context_escaper() -> None:
    for text in ("{{html .X}}", "{{.X | html}}"):
        page = render(f'<b onclick="f({text})">', {"X": "');alert(1)//\""})
        parser = _Parser()
        parser.feed(page)
        assert parser.attrs == ["onclick"]
        with pytest.raises(TemplateError, match="'html' is not allowed here"):
            compile_templates({"t": f"<b title={text}>"})


def test_compile_file_defining_itself() -> None:
    texts = {
        "a": '\n{{define "a"}}A{{end}}\n',
        "b": '{{define "a"}} {{end}}{{template "a"}}',
    }
    page = compile_templates(texts)
    assert page.render("a", {}) == b"A"
    assert page.render("b", {}) == b"A"


def test_render_uncompiled_template_raises() -> None:
    with pytest.raises(TemplateError, match="no such template"):
        compile_templates({"a": "x"}).render("b", {})


class _Parser(HTMLParser):
    """Counts the tags and attributes that a browser would parse."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attrs: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attrs += [name for name, _ in attrs]


PLACES = (
    '<p title="{{.X}}" class={{.X}}>{{.X}}</p><a href="{{.X}}">{{.X}}</a>'
    "<script>var a = {{.X}}, b = '{{.X}}', c = \"{{.X}}\";</script>"
    '<style>p { color: {{.X}}; content: "{{.X}}" }</style><title>{{.X}}</title>'
    '<a onclick="f({{.X}})" href="/x?{{.X}}#{{.X}}"></a>'
)
PLACES_COMPILED = compile_templates({"t": PLACES})


# White space for Python's parser, but not for the HTML standard and browsers.
NO_BLANKS = "".join(map(chr, (0xB, *range(0x1C, 0x20), 0x85, 0xA0)))
ANY_TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters=NO_BLANKS))
NASTY_TEXT = st.text(alphabet="<>\"'`&/\\{}$();:=- \n\0a")


@given(ANY_TEXT | NASTY_TEXT)
def test_ou01_value_stays_in_its_context(value: str) -> None:
    parser = _Parser()
    parser.feed(PLACES_COMPILED.render("t", {"X": value}).decode())
    assert parser.tags == ["p", "a", "script", "style", "title", "a"]
    assert parser.attrs == ["title", "class", "href", "onclick", "href"]


@pytest.mark.parametrize(
    "text",
    [
        "<b title='",
        '{{define "r"}}{{if .}}{{template "r"}}{{end}}<b title="{{end}}{{template "r"}}',
        '{{define "r"}}{{template "r"}}<b title="{{end}}{{template "r"}}',
        "<style>p{content:'\\",
        "<script>a = '\\",
        "<script>{{if .X}}a{{else}}b+{{end}}/x/</script>",
        "<b =>",
        '{{define "a"}}{{else}}{{end}}',
        "{{if .X}}{{else}}{{else}}{{end}}",
        "{{.X | }}",
        "{{.X | .Y}}",
        "{{nil}}",
        "{{print len}}",
        '{{"x".Y}}',
        "{{|}}",
        '{{"\\z"}}',
        '{{"\\xff"}}',
        '{{"\\ud800"}}',
        "{{/* a */ x}}",
        "{{$x : 1}}",
        "{{.X&}}",
        "{{:}}",
        "{{&}}",
        "{{.X)}}",
        "{{print .X `a` )}}",
        "{{template `a` . x}}",
        "{{end .X}}",
        "{{if .X}}{{end .X}}",
        "{{with .X .Y}}{{end}}",
        "{{if .X}",
        "{{template .X}}",
        "{{range $a, $b, $c := .L}}{{end}}",
    ],
)
def test_compile_invalid_syntax_rejected(text: str) -> None:
    with pytest.raises(TemplateError):
        compile_templates({"t": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<style>p{content:'\\{{.X}}\\41'; x: '\\110000'}</style>", None),
        ("<script>a = 1.{{.N}}; b = 1. / 2; c = .5; d = a. / 2</script>", None),
        ("<script>a = `\\`{{.X}}`; b = /\\//; c = /[/]/</script>", None),
        ("<b title = {{.X}}>", "<b title = x>"),
        ("<b title= '{{.X}}'>", "<b title= 'x'>"),
        ("<a href=' {{.X}}'>", None),
        ("<a href='{{.X}}{{.X}}'>", "<a href='xx'>"),
        ('{{template "d"}}{{define "d"}}[{{.}}]{{end}}', "[]"),
        ("{{printf `%`}}", "%!(NOVERB)"),
        ("{{printf `a` 1 `b`}}", "a%!(EXTRA int=1, string=b)"),
        ("{{printf `%d` true}}", "%!d(bool=true)"),
        ("{{printf `%t%v` true false}}", "truefalse"),
        ("{{printf `%v` .L}}", "[a b]"),
        ("{{printf `%q` .Odd}}", None),
        ("{{eq nil .Nothing}}{{eq .Nothing .X}}", "truefalse"),
        ("{{.Nothing.X}}", ""),
        ("{{printf `%v` .Nothing}}", "&lt;nil&gt;"),
        ("{{lt `a` `b`}}", "true"),
        ("{{ .X }}{{  .X | print  }}", "xx"),
        ("{{printf `%s.` print}}", "."),
        ("<style>p{content:'\\41 b'; x: '{{.X}}'; y: '\\110000'}</style>", None),
        ("<p title='{{.Odder}}'>", None),
        ("<style>p{content:'\\41 b{{.X}}'}</style>", None),
        ("<style>p{content:'\\110000 {{.X}}'}</style>", None),
        ("<p title='{{.Tagged}}'>", None),
        ("<p title='{{.Broken}}'>", None),
        ("{{html .X}}<p title={{html .X}}>", None),
        ("{{(len .L)}}{{print}}", "2"),
        ("{{$.X}}{{$x := .M}}{{$x.k}}", "x1"),
        ("{{if and .X (eq .N 3)}}y{{end}}", "y"),
        ("<textarea>{{.H}}</textarea>", None),
    ],
)
def test_language_edge_cases(text: str, expected: str | None) -> None:
    values = {
        "X": "x", "N": 3, "L": ["a", "b"], "M": {"k": 1}, "Nothing": None,
        "Odd": "\x01\u200b\U0001d173\u00e9", "H": Html("<b>h</b>"),
        "Tagged": Html("<a href=x title='y' alt=\"z\">t</a><!-- c --><b q>"),
        "Broken": Html("a <b title='x"), "Odder": Html("a <b x'y> c"),
    }  # fmt: skip
    if expected is None:
        with contextlib.suppress(TemplateError):
            assert render(text, values)
    else:
        assert render(text, values) == expected


def test_css_value_with_escape_beyond_unicode() -> None:
    text = render("<style>p{x:{{.X}}}</style>", {"X": "\\110000 \\41 \\d800 "})
    assert text == "<style>p{x:\U000110000 A\ufffd}</style>"


def test_render_value_of_unsupported_type_raises() -> None:
    with pytest.raises(TemplateError, match="can't use"):
        render("{{if .X}}{{end}}", {"X": 1.5})


def test_plain_template_escapes_nothing() -> None:
    """Without a context of HTML, branches may end anywhere."""
    text = '{{$x := .S}}{{if .S}}<a href="{{$x}}"{{end}}{{template "t2" .}}{{.S | len}}'
    text += '{{define "t2"}}<script>{{.S}}{{end}}'
    compiled = compile_templates({"t": text}, {"S"}, ["t"], plain=True)
    assert compiled.render("t", {"S": '"&"'}) == b'<a href=""&""<script>"&"3'
    with pytest.raises(TemplateError, match=r"no such field \.X"):
        compile_templates({"t": "{{.X}}"}, {"S"}, plain=True)


@pytest.mark.parametrize("clause", ["$x := .C", "$x := $x"])
def test_template_range_variable_in_else_is_undefined(clause: str) -> None:
    text = "{{range %s}}{{else}}{{$x}}{{end}}" % clause  # noqa: UP031
    with pytest.raises(TemplateError, match="undefined variable"):
        compile_templates({"p": text}).render("p", {"C": []})
